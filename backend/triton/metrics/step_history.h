#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

#include "batch_manager/statistics.h"

namespace inflight::triton {

struct EndedStep {
  StepStatistics statistics;
  std::chrono::system_clock::time_point time;  // when it ended
};

// The steps since they were last asked for, at most `capacity` of them, the latest: written by the batch manager's
// loop, which must not wait, and read from time to time.
class StepHistory {
 public:
  explicit StepHistory(int32_t capacity) : capacity_(capacity) {}

  void add(const StepStatistics& statistics);

  // Replaces `steps` by what was added since the last call, oldest first.
  void take(std::vector<EndedStep>& steps);

 private:
  const size_t capacity_;
  std::mutex mutex_;
  std::vector<EndedStep> steps_;  // a ring once it is full
  size_t oldest_ = 0;
};

}  // namespace inflight::triton
