#include "triton/metrics/iteration_history.h"

#include <algorithm>
#include <utility>

namespace inflight::triton {

void IterationHistory::add(const IterationStatistics& statistics) {
  if (capacity_ == 0) return;
  const Iteration iteration{statistics, std::chrono::system_clock::now()};
  std::lock_guard lock(mutex_);
  if (iterations_.size() < capacity_) {
    iterations_.push_back(iteration);
  } else {
    iterations_[oldest_] = iteration;
    oldest_ = (oldest_ + 1) % capacity_;
  }
}

void IterationHistory::take(std::vector<Iteration>& iterations) {
  iterations.clear();
  size_t oldest;
  {
    std::lock_guard lock(mutex_);
    iterations.swap(iterations_);  // each vector keeps its memory for the next time
    oldest = std::exchange(oldest_, 0);
  }
  std::rotate(iterations.begin(), iterations.begin() + oldest, iterations.end());
}

}  // namespace inflight::triton
