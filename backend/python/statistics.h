#pragma once

#include <nanobind/nanobind.h>

#include <mutex>
#include <vector>

#include "batch_manager/statistics.h"

namespace inflight::python {

// Every field under its name in C++; durations in seconds.
nanobind::dict to_python(const Statistics& statistics);
nanobind::dict to_python(const StepStatistics& statistics);
nanobind::dict to_python(const RequestTimes& times);

// The last `size` of what was added, from any thread; allocates nothing after its constructor.
template <class Entry>
class History {
 public:
  explicit History(size_t size) : size_(size) { entries_.reserve(size); }

  void add(const Entry& entry) {
    std::lock_guard lock(mutex_);
    if (entries_.size() < size_) {
      entries_.push_back(entry);
    } else if (size_ > 0) {
      entries_[oldest_] = entry;
      oldest_ = (oldest_ + 1) % size_;
    }
  }

  // Oldest first.
  std::vector<Entry> entries() const {
    std::lock_guard lock(mutex_);
    std::vector<Entry> ordered(entries_.begin() + oldest_, entries_.end());
    ordered.insert(ordered.end(), entries_.begin(), entries_.begin() + oldest_);
    return ordered;
  }

 private:
  const size_t size_;
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
  size_t oldest_ = 0;
};

template <class Entry>
nanobind::list to_python(const std::vector<Entry>& entries) {
  nanobind::list result;
  for (const Entry& entry : entries) result.append(to_python(entry));
  return result;
}

}  // namespace inflight::python
