#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "engine/cpu/kv_cache_storage.h"
#include "engine/engine.h"

namespace inflight::cpu {

// Copies whole KV-cache blocks on a thread of its own, beside the steps: one after another in the order of
// submission, each after the steps that were submitted before it. Copies are known by how many there were up to them.
class BlockCopier {
 public:
  explicit BlockCopier(const KvCacheStorage& cache);
  ~BlockCopier();  // lets the running copy end and drops the others

  // These two are for one thread, that which submits steps.
  // Starts copies once the engine's first `num_steps` steps are done. Returns the number of the last of them.
  uint64_t start(std::span<const BlockCopy> copies, uint64_t num_steps);
  // The number of the last copy that touches one of these blocks; 0: all such are done.
  uint64_t last_touching(std::span<const int32_t> block_ids) const;

  bool is_done(uint64_t copy) const { return num_done_.load(std::memory_order_acquire) >= copy; }
  void wait(uint64_t copy);
  void set_steps_done(uint64_t num_steps);

 private:
  struct QueuedCopy {
    BlockCopy blocks;
    uint64_t num_steps;
  };

  void run();
  bool wait_for_steps(uint64_t num_steps);

  const KvCacheStorage& cache_;
  uint64_t num_started_ = 0;
  std::vector<uint64_t> last_copies_;  // by block: the number of the last copy that touches it

  std::atomic<uint64_t> num_done_ = 0;
  std::mutex mutex_;
  std::condition_variable queued_;
  std::condition_variable steps_done_;
  std::condition_variable copied_;
  std::vector<QueuedCopy> queue_;
  uint64_t num_steps_done_ = 0;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace inflight::cpu
