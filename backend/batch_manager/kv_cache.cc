#include "batch_manager/kv_cache.h"

#include "common/error.h"

namespace inflight {

struct KvCache::Implementation {
  KvCacheOptions options;
  KvCacheStatistics statistics;
  int32_t reserved_blocks = 0;
  std::vector<int32_t> free;  // used as a stack: the last block given back is still warm in cache
};

KvCache::KvCache(const KvCacheOptions& options) : implementation_(std::make_unique<Implementation>()) {
  implementation_->options = options;
  implementation_->statistics.total_blocks = options.num_blocks;
  implementation_->statistics.tokens_per_block = options.tokens_per_block;
  for (int32_t block = options.num_blocks - 1; block >= 0; --block) implementation_->free.push_back(block);
}

KvCache::~KvCache() = default;

const KvCacheStatistics& KvCache::statistics() const {
  KvCacheStatistics& statistics = implementation_->statistics;
  statistics.free_blocks = free_blocks();
  statistics.used_blocks = statistics.total_blocks - statistics.free_blocks;
  return statistics;
}

int32_t KvCache::free_blocks() const { return static_cast<int32_t>(implementation_->free.size()); }

int32_t KvCache::blocks_for(int64_t num_tokens) const {
  const int32_t tokens_per_block = implementation_->options.tokens_per_block;
  return static_cast<int32_t>((num_tokens + tokens_per_block - 1) / tokens_per_block);
}

int32_t KvCache::peak_blocks(int64_t num_tokens, int32_t) const { return blocks_for(num_tokens); }

std::optional<Admission> KvCache::admit(BlockList& list, const PrefixKey&, int32_t num_blocks, bool) {
  if (implementation_->reserved_blocks + num_blocks > free_blocks()) return std::nullopt;
  implementation_->reserved_blocks += num_blocks;
  list.num_reserved = num_blocks;
  return Admission{};
}

bool KvCache::fork(const BlockList&, int32_t, BlockList&, int32_t) { return false; }

bool KvCache::extend(BlockList& list, int64_t num_tokens) {
  const size_t needed = blocks_for(num_tokens);
  const int32_t missing = static_cast<int32_t>(needed) - static_cast<int32_t>(list.block_ids.size());
  if (missing > list.num_reserved && implementation_->reserved_blocks + missing - list.num_reserved > free_blocks()) {
    return false;
  }
  while (list.block_ids.size() < needed) {
    if (list.num_reserved > 0) {
      --list.num_reserved;
      --implementation_->reserved_blocks;
    }
    list.block_ids.push_back(implementation_->free.back());
    implementation_->free.pop_back();
  }
  return true;
}

void KvCache::commit(BlockList&, const PrefixKey&) {}

void KvCache::release(BlockList& list, const PrefixKey&, int32_t, const KvCacheRetention&) { release(list); }

void KvCache::release(BlockList& list) {
  auto& free = implementation_->free;
  free.insert(free.end(), list.block_ids.rbegin(), list.block_ids.rend());
  implementation_->reserved_blocks -= list.num_reserved;
  list = {};
}

std::span<const BlockCopy> KvCache::take_copies() { return {}; }

}  // namespace inflight
