#include "triton/metrics/step_history.h"

#include <algorithm>
#include <utility>

namespace inflight::triton {

void StepHistory::add(const StepStatistics& statistics) {
  if (capacity_ == 0) return;
  const EndedStep step{statistics, std::chrono::system_clock::now()};
  std::lock_guard lock(mutex_);
  if (steps_.size() < capacity_) {
    steps_.push_back(step);
  } else {
    steps_[oldest_] = step;
    oldest_ = (oldest_ + 1) % capacity_;
  }
}

void StepHistory::take(std::vector<EndedStep>& steps) {
  steps.clear();
  size_t oldest;
  {
    std::lock_guard lock(mutex_);
    steps.swap(steps_);  // each vector keeps its memory for the next time
    oldest = std::exchange(oldest_, 0);
  }
  std::rotate(steps.begin(), steps.begin() + oldest, steps.end());
}

}  // namespace inflight::triton
