#include "engine/cpu/block_copier.h"

#include <algorithm>

namespace inflight::cpu {

BlockCopier::BlockCopier(const KvCacheStorage& cache)
    : cache_(cache), last_copies_(cache.num_blocks(), 0), thread_([this] { run(); }) {}

BlockCopier::~BlockCopier() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  queued_.notify_one();
  steps_done_.notify_one();
  thread_.join();
}

uint64_t BlockCopier::start(std::span<const BlockCopy> copies, uint64_t num_steps) {
  if (copies.empty()) return num_started_;
  {
    std::lock_guard lock(mutex_);
    for (const BlockCopy& copy : copies) queue_.push_back({copy, num_steps});
  }
  queued_.notify_one();
  for (const BlockCopy& copy : copies) last_copies_[copy.source] = last_copies_[copy.destination] = ++num_started_;
  return num_started_;
}

uint64_t BlockCopier::last_touching(std::span<const int32_t> block_ids) const {
  if (is_done(num_started_)) return 0;
  uint64_t last = 0;
  for (const int32_t block : block_ids) {
    if (block != kFreedBlock) last = std::max(last, last_copies_[block]);
  }
  return last;
}

void BlockCopier::wait(uint64_t copy) {
  if (is_done(copy)) return;
  std::unique_lock lock(mutex_);
  copied_.wait(lock, [&] { return is_done(copy); });
}

void BlockCopier::set_steps_done(uint64_t num_steps) {
  {
    std::lock_guard lock(mutex_);
    num_steps_done_ = num_steps;
  }
  steps_done_.notify_one();
}

void BlockCopier::run() {
  std::vector<QueuedCopy> copies;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      queued_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      copies.swap(queue_);
    }
    for (const QueuedCopy& copy : copies) {
      if (!wait_for_steps(copy.num_steps)) return;
      cache_.copy_block(copy.blocks.source, copy.blocks.destination);
      {
        std::lock_guard lock(mutex_);
        num_done_.fetch_add(1, std::memory_order_release);
      }
      copied_.notify_one();
    }
    copies.clear();
  }
}

// False: the engine goes.
bool BlockCopier::wait_for_steps(uint64_t num_steps) {
  std::unique_lock lock(mutex_);
  steps_done_.wait(lock, [&] { return stopping_ || num_steps_done_ >= num_steps; });
  return !stopping_;
}

}  // namespace inflight::cpu
