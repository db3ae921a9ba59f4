#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "engine/cpu/kv_cache_storage.h"
#include "engine/engine.h"

namespace inflight::cpu {

// Copies whole KV-cache blocks on a thread of its own, beside the steps: one after another, in the order in which they
// were started. Copies are known by how many there were up to them.
class BlockCopier {
 public:
  explicit BlockCopier(const KvCacheStorage& cache);
  ~BlockCopier();  // lets the running copy end and drops the others

  // These are for one thread, that which runs the steps.
  // Starts the copies of a step; none may be. Those of all earlier steps were started before.
  void start(std::span<const BlockCopy> copies, StepNumber step);
  // The number of the last copy that touches one of these blocks; 0: all such are done.
  uint64_t last_touching(std::span<const int32_t> block_ids) const;
  void wait(uint64_t copy);

  // Whether all copies of the steps up to this one were started and are done. From any thread.
  bool is_done(StepNumber step) const;

 private:
  struct QueuedCopy {
    BlockCopy blocks;
    StepNumber step;
  };

  bool is_copied(uint64_t copy) const { return num_done_.load(std::memory_order_acquire) >= copy; }
  void run();

  const KvCacheStorage& cache_;
  uint64_t num_started_ = 0;
  std::vector<uint64_t> last_copies_;  // by block: the number of the last copy that touches it

  std::atomic<uint64_t> num_done_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable queued_;
  std::condition_variable copied_;
  std::deque<QueuedCopy> queue_;  // the first one is being copied
  StepNumber last_started_ = 0;   // step
  bool stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace inflight::cpu
