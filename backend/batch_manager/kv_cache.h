#pragma once

#include <cstdint>
#include <vector>

namespace inflight {

// Hands out the engine's KV-cache blocks. Sequences reserve all that they may come to need when they are
// admitted, so that a running sequence never finds the cache full (guaranteed_no_evict), and take blocks
// one by one as their tokens arrive.
class KvCache {
 public:
  KvCache(int32_t num_blocks, int32_t tokens_per_block);

  int32_t total_blocks() const { return total_blocks_; }
  int32_t free_blocks() const { return static_cast<int32_t>(free_.size()); }
  int32_t blocks_for(int64_t num_tokens) const;

  // False if the blocks that are not yet promised to others do not suffice.
  bool reserve(int32_t num_blocks);
  void cancel_reservation(int32_t num_blocks);

  // Appends blocks until `block_ids` holds `num_tokens` tokens. Never fails within a reservation.
  void extend(std::vector<int32_t>& block_ids, int64_t num_tokens);
  // Gives back all of `block_ids` and empties it.
  void release(std::vector<int32_t>& block_ids);

 private:
  int32_t total_blocks_;
  int32_t tokens_per_block_;
  int32_t reserved_blocks_ = 0;
  std::vector<int32_t> free_;  // used as a stack: the last block given back is still warm in cache
};

}  // namespace inflight
