#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "batch_manager/request.h"

namespace inflight {

// Bytes of all the logits that a request may be sent: context logits once, generation logits of each sequence.
int64_t logits_bytes(const Request& request, int32_t vocab_size);

// The memory for logits that requests ask for, EngineInfo::logits_bytes. One thread reserves.
class LogitsBudget {
 public:
  explicit LogitsBudget(int64_t bytes) : free_(std::make_shared<std::atomic<int64_t>>(bytes)) {}

  bool has_room(int64_t bytes) const { return free_->load() >= bytes; }
  // Takes bytes for which there is room; they are free again when the last owner of the result lets go of it, on
  // whatever thread.
  std::shared_ptr<const void> reserve(int64_t bytes);

 private:
  const std::shared_ptr<std::atomic<int64_t>> free_;
};

}  // namespace inflight
