#include "batch_manager/guided/requested_guide.h"

#include <utility>

namespace inflight {

std::shared_ptr<const CompiledGuide> RequestedGuide::get() const {
  is_ready_.wait(false, std::memory_order_acquire);
  if (error_) throw *error_;
  return compiled_;
}

void RequestedGuide::finish(std::shared_ptr<const CompiledGuide> compiled) {
  compiled_ = std::move(compiled);
  set_ready();
}

void RequestedGuide::fail(Error error) {
  error_ = std::move(error);
  set_ready();
}

void RequestedGuide::set_ready() {
  is_ready_.store(true, std::memory_order_release);
  is_ready_.notify_all();
}

}  // namespace inflight
