#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "triton/metrics/metrics.h"
#include "triton/metrics/step_history.h"

namespace inflight::triton {

// Keeps Triton's metrics of one model up to date, busy or idle, and at verbose level logs a line for each step, and one
// when nothing runs any more: every `period`, from a thread of its own, so that the batch manager's loop spends no time
// on either.
class StatisticsReporter {
 public:
  // All must outlive it.
  StatisticsReporter(std::string model, bool is_static_batch, const BatchManager& batch_manager, StepHistory& steps,
                     Metrics& metrics, std::chrono::milliseconds period);
  ~StatisticsReporter();
  StatisticsReporter(const StatisticsReporter&) = delete;
  StatisticsReporter& operator=(const StatisticsReporter&) = delete;

 private:
  void run();
  void report();

  const std::string model_;
  const bool is_static_batch_;
  const BatchManager& batch_manager_;
  StepHistory& steps_;
  Metrics& metrics_;
  const std::chrono::milliseconds period_;

  std::vector<EndedStep> taken_;
  EndedStep last_{};
  bool is_idle_ = true;

  std::mutex mutex_;
  std::condition_variable closed_;
  bool is_closing_ = false;
  std::thread thread_;  // last: it uses the above
};

}  // namespace inflight::triton
