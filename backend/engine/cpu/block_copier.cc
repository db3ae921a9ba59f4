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
  thread_.join();
}

void BlockCopier::start(std::span<const BlockCopy> copies, StepNumber step) {
  {
    std::lock_guard lock(mutex_);
    for (const BlockCopy& copy : copies) queue_.push_back({copy, step});
    last_started_ = step;
  }
  if (!copies.empty()) queued_.notify_one();
  for (const BlockCopy& copy : copies) last_copies_[copy.source] = last_copies_[copy.destination] = ++num_started_;
}

uint64_t BlockCopier::last_touching(std::span<const int32_t> block_ids) const {
  if (is_copied(num_started_)) return 0;
  uint64_t last = 0;
  for (const int32_t block : block_ids) {
    if (block != kFreedBlock) last = std::max(last, last_copies_[block]);
  }
  return last;
}

void BlockCopier::wait(uint64_t copy) {
  if (is_copied(copy)) return;
  std::unique_lock lock(mutex_);
  copied_.wait(lock, [&] { return is_copied(copy); });
}

bool BlockCopier::is_done(StepNumber step) const {
  std::lock_guard lock(mutex_);
  return last_started_ >= step && (queue_.empty() || queue_.front().step > step);
}

void BlockCopier::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    queued_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const BlockCopy blocks = queue_.front().blocks;
    lock.unlock();
    cache_.copy_block(blocks.source, blocks.destination);
    lock.lock();
    queue_.pop_front();
    num_done_.fetch_add(1, std::memory_order_release);
    copied_.notify_one();
  }
}

}  // namespace inflight::cpu
