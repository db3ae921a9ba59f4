#include "batch_manager/kv_cache.h"

#include "common/error.h"

namespace inflight {

KvCache::KvCache(int32_t num_blocks, int32_t tokens_per_block)
    : total_blocks_(num_blocks), tokens_per_block_(tokens_per_block) {
  free_.reserve(num_blocks);
  for (int32_t block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

int32_t KvCache::blocks_for(int64_t num_tokens) const {
  return static_cast<int32_t>((num_tokens + tokens_per_block_ - 1) / tokens_per_block_);
}

bool KvCache::reserve(int32_t num_blocks) {
  if (reserved_blocks_ + num_blocks > total_blocks_) return false;
  reserved_blocks_ += num_blocks;
  return true;
}

void KvCache::cancel_reservation(int32_t num_blocks) { reserved_blocks_ -= num_blocks; }

void KvCache::extend(std::vector<int32_t>& block_ids, int64_t num_tokens) {
  const size_t needed = blocks_for(num_tokens);
  while (block_ids.size() < needed) {
    if (free_.empty()) {
      throw_error(ErrorCode::kInternal, "the KV cache has no free block of ", total_blocks_, " within a reservation");
    }
    block_ids.push_back(free_.back());
    free_.pop_back();
  }
}

void KvCache::release(std::vector<int32_t>& block_ids) {
  free_.insert(free_.end(), block_ids.rbegin(), block_ids.rend());
  block_ids.clear();
}

}  // namespace inflight
