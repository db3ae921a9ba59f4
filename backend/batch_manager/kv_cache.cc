#include "batch_manager/kv_cache.h"

#include <algorithm>
#include <utility>

namespace inflight {
namespace {

struct BlockRetention {
  RetentionPriority priority;
  std::optional<std::chrono::milliseconds> duration;
};

// What the retention says of the block that begins with this token. As in TensorRT-LLM, the first range that covers it
// counts. None: nothing.
std::optional<BlockRetention> retention_of(const KvCacheRetention& retention, int32_t token, int32_t prompt_length) {
  if (token >= prompt_length) {
    const bool is_default = retention.decode_priority == kDefaultRetentionPriority && !retention.decode_duration;
    if (is_default) return std::nullopt;
    return BlockRetention{retention.decode_priority, retention.decode_duration};
  }
  for (const RetentionRange& range : retention.ranges) {
    if (token >= range.begin && token < range.end.value_or(prompt_length)) {
      return BlockRetention{range.priority, range.duration};
    }
  }
  return std::nullopt;
}

// Empties a list and keeps its memory.
void clear(BlockList& list) {
  std::vector<int32_t> memory = std::move(list.block_ids);
  memory.clear();
  list = {};
  list.block_ids = std::move(memory);
}

}  // namespace

KvCache::KvCache(const KvCacheOptions& options)
    : options_(options),
      num_sink_blocks_(blocks_for(options.sink_tokens)),
      tree_(options.enable_reuse ? options.num_blocks + options.num_host_blocks : 0, options.tokens_per_block),
      pool_(options.num_blocks, options.num_host_blocks, tree_) {}

KvCacheStatistics KvCache::statistics() const {
  KvCacheStatistics statistics;
  statistics.total_blocks = options_.num_blocks;
  statistics.free_blocks = pool_.num_free();
  statistics.used_blocks = options_.num_blocks - pool_.num_free();
  statistics.cached_blocks = pool_.num_cached();
  statistics.total_host_blocks = options_.num_host_blocks;
  statistics.used_host_blocks = options_.num_host_blocks - pool_.num_empty_on_host();
  statistics.tokens_per_block = options_.tokens_per_block;
  statistics.allocated_blocks = num_new_ + num_reused_;
  statistics.new_blocks = num_new_;
  statistics.reused_blocks = num_reused_;
  statistics.evicted_blocks = pool_.num_evicted();
  statistics.offloaded_blocks = pool_.num_offloaded();
  statistics.onboarded_blocks = pool_.num_onboarded();
  return statistics;
}

int32_t KvCache::blocks_for(int64_t num_tokens) const {
  return static_cast<int32_t>((num_tokens + options_.tokens_per_block - 1) / options_.tokens_per_block);
}

int32_t KvCache::peak_blocks(int64_t num_tokens, int64_t max_chunk) const {
  if (options_.attention_window == 0) return blocks_for(num_tokens);
  // Worst, the first of the window's tokens is the last of its block. (What window_begin() keeps, and the chunk.)
  const int64_t span = static_cast<int64_t>(options_.attention_window) + max_chunk;
  return std::min(blocks_for(num_tokens), num_sink_blocks_ + 1 + blocks_for(span - 1));
}

int32_t KvCache::available() const {
  // A sequence that leaves a shared block behind takes another one although no block has become free.
  const int32_t owed = options_.attention_window > 0 ? pool_.num_shared_references() : 0;
  return pool_.num_free() - num_reserved_ - owed;
}

int32_t KvCache::window_begin(int64_t num_tokens) const {
  // Token i sees tokens i - window + 1 .. i. The next one is num_tokens; fork() may compute the one before once more.
  if (options_.attention_window == 0 || num_tokens < options_.attention_window) return num_sink_blocks_;
  return std::max(num_sink_blocks_,
                  static_cast<int32_t>((num_tokens - options_.attention_window) / options_.tokens_per_block));
}

bool KvCache::is_left_behind(int32_t index, int32_t window_begin) const {
  return index >= num_sink_blocks_ && index < window_begin;
}

int32_t KvCache::num_left_behind(int32_t num_blocks, int32_t window_begin) const {
  return std::max(0, std::min(num_blocks, window_begin) - num_sink_blocks_);
}

PrefixTree::Match KvCache::find_prefix(const PrefixKey& key) {
  prefix_.clear();
  // At least one token is computed, as the next one is sampled from it.
  const size_t num_tokens = key.tokens.size() - 1, block_size = options_.tokens_per_block;
  PrefixTree::Match match{.node = PrefixTree::kRoot};
  for (size_t begin = 0; begin < num_tokens; begin += block_size) {
    match = tree_.longest_match(match.node, key.part(begin, std::min(block_size, num_tokens - begin)));
    if (match.num_tokens < options_.tokens_per_block) return match;
    prefix_.push_back(match.node);
  }
  return {};
}

std::optional<Admission> KvCache::admit(BlockList& list, const PrefixKey& key, int32_t num_blocks, bool reuse) {
  prefix_.clear();
  PrefixTree::Match partial;
  if (options_.enable_reuse && reuse && !key.tokens.empty()) partial = find_prefix(key);
  const int32_t num_shared = static_cast<int32_t>(prefix_.size());
  const int32_t num_copied = partial.num_tokens > 0 ? 1 : 0;
  Admission admission{.num_cached = num_shared * options_.tokens_per_block + partial.num_tokens};

  const int32_t begin = window_begin(admission.num_cached);
  const int32_t num_held = num_shared - num_left_behind(num_shared, begin);
  int32_t num_taken = 0;  // of the held ones: those that others could have now
  for (int32_t i = 0; i < num_shared; ++i) {
    const bool costs_nothing = options_.attention_window == 0 && pool_.is_in_use(pool_.block_of(prefix_[i]));
    if (!costs_nothing && !is_left_behind(i, begin)) ++num_taken;
  }
  const int32_t num_missing = std::max(num_copied, num_blocks - num_held);
  if (num_taken + num_missing > available()) return std::nullopt;

  list.block_ids.reserve(num_shared + num_missing);
  for (int32_t i = 0; i < num_shared; ++i) {
    const int32_t block = is_left_behind(i, begin) ? kFreedBlock : pool_.block_of(prefix_[i]);
    if (block != kFreedBlock) pool_.acquire(block);
    list.block_ids.push_back(block);
  }
  list.window_begin = begin;
  list.num_committed = num_shared;
  list.position = tree_.position(num_shared > 0 ? prefix_.back() : PrefixTree::kRoot);
  list.num_reused = num_held + num_copied;
  num_reused_ += list.num_reused;

  // From here on, blocks are evicted; those held above are safe, even if they lose their place in the tree. The partly
  // equal block comes first, as nobody holds it.
  if (num_copied > 0) list.block_ids.push_back(pool_.take_copy(pool_.block_of(partial.node)));
  for (int32_t& block : list.block_ids) {
    if (block == kFreedBlock) continue;
    if (pool_.is_on_host(block)) block = pool_.onboard(block);
    admission.copies_from_host |= pool_.is_arriving(block);
  }
  list.num_guaranteed = num_blocks;
  list.num_reserved = num_missing - num_copied;
  num_reserved_ += list.num_reserved;
  return admission;
}

bool KvCache::fork(const BlockList& parent, int32_t num_tokens, BlockList& list, int32_t num_blocks) {
  const int32_t num_shared = num_tokens / options_.tokens_per_block;
  const int32_t num_copied = num_tokens % options_.tokens_per_block > 0 ? 1 : 0;
  if (parent.window_begin > window_begin(num_tokens + 1)) return false;
  const int32_t num_held = num_shared - num_left_behind(num_shared, parent.window_begin);
  const int32_t num_missing = std::max(num_copied, num_blocks - num_held);
  if (num_missing + (options_.attention_window > 0 ? num_held : 0) > available()) return false;

  list.block_ids.reserve(num_shared + num_missing);
  list.block_ids.assign(parent.block_ids.begin(), parent.block_ids.begin() + num_shared);
  for (int32_t block : list.block_ids) {
    if (block != kFreedBlock) pool_.acquire(block);
  }
  if (num_copied > 0) {
    list.block_ids.push_back(pool_.take_copy(parent.block_ids[num_shared]));
    ++num_new_;
  }
  list.num_reused = std::min(parent.num_reused, num_held);
  list.window_begin = parent.window_begin;
  list.num_committed = std::min(parent.num_committed, num_shared);
  list.position = parent.position;
  if (tree_.contains(parent.position)) {
    int32_t node = parent.position.node;
    for (int32_t i = list.num_committed; i < parent.num_committed; ++i) node = tree_.parent(node);
    list.position = tree_.position(node);
  }
  list.num_guaranteed = num_blocks;
  list.num_reserved = num_missing - num_copied;
  num_reserved_ += list.num_reserved;
  return true;
}

bool KvCache::extend(BlockList& list, int64_t num_tokens) {
  const int32_t num_missing = blocks_for(num_tokens) - static_cast<int32_t>(list.block_ids.size());
  if (num_missing <= 0) return true;
  if (num_missing > list.num_reserved && num_missing - list.num_reserved > available()) return false;
  for (int32_t i = 0; i < num_missing; ++i) {
    if (list.num_reserved > 0) {
      --list.num_reserved;
      --num_reserved_;
    }
    list.block_ids.push_back(pool_.take());
  }
  num_new_ += num_missing;
  return true;
}

int32_t KvCache::held_blocks(const BlockList& list) const {
  const int32_t num_blocks = static_cast<int32_t>(list.block_ids.size());
  return num_blocks - num_left_behind(num_blocks, list.window_begin);
}

void KvCache::lower_guarantee(BlockList& list, int32_t num_blocks) {
  list.num_guaranteed = std::min(list.num_guaranteed, num_blocks);
  const int32_t excess = std::clamp(held_blocks(list) + list.num_reserved - list.num_guaranteed, 0, list.num_reserved);
  list.num_reserved -= excess;
  num_reserved_ -= excess;
}

int32_t KvCache::keep(int32_t parent, const PrefixKey& tokens, int32_t block) {
  const int32_t num_tokens = static_cast<int32_t>(tokens.tokens.size());
  const PrefixTree::Match match = tree_.longest_match(parent, tokens);
  if (match.num_tokens < num_tokens) {
    if (match.num_tokens > 0 && match.num_tokens == tree_.num_tokens(match.node)) pool_.drop(match.node);
    const int32_t node = tree_.insert(parent, tokens);
    pool_.bind(node, block);
    return node;
  }
  const bool is_equal = tree_.num_tokens(match.node) == num_tokens;
  if (is_equal && pool_.is_on_host(pool_.block_of(match.node))) pool_.bind(match.node, block);
  return match.node;
}

bool KvCache::attach(BlockList& list) const {
  if (tree_.contains(list.position)) return true;
  if (list.window_begin > num_sink_blocks_) return false;
  list.num_committed = 0;
  list.position = {};
  return true;
}

void KvCache::keep_full_blocks(BlockList& list, const PrefixKey& key) {
  const int32_t num_full = static_cast<int32_t>(key.tokens.size()) / options_.tokens_per_block;
  if (num_full <= list.num_committed || !attach(list)) return;
  int32_t node = list.position.node;
  for (int32_t& i = list.num_committed; i < num_full; ++i) {
    const size_t begin = static_cast<size_t>(i) * options_.tokens_per_block;
    node = keep(node, key.part(begin, options_.tokens_per_block), list.block_ids[i]);
  }
  list.position = tree_.position(node);
}

void KvCache::commit(BlockList& list, const PrefixKey& key) {
  if (options_.enable_reuse) keep_full_blocks(list, key);
  if (options_.attention_window > 0) leave_behind(list, static_cast<int64_t>(key.tokens.size()));
}

void KvCache::leave_behind(BlockList& list, int64_t num_tokens) {
  const int32_t end = window_begin(num_tokens);
  if (list.window_begin >= end) return;
  for (; list.window_begin < end; ++list.window_begin) {
    pool_.release(std::exchange(list.block_ids[list.window_begin], kFreedBlock));
  }
  const int32_t num_owed = list.num_guaranteed - held_blocks(list) - list.num_reserved;
  if (num_owed > 0) {
    list.num_reserved += num_owed;
    num_reserved_ += num_owed;
  }
}

void KvCache::release(BlockList& list, const PrefixKey& key, int32_t prompt_length, const KvCacheRetention& retention) {
  if (!options_.enable_reuse || !attach(list)) return release(list);
  keep_full_blocks(list, key);
  int32_t node = list.position.node, num_nodes = list.num_committed;
  const size_t end = static_cast<size_t>(num_nodes) * options_.tokens_per_block;
  if (end < key.tokens.size() && !pool_.is_shared(list.block_ids[num_nodes])) {
    const PrefixKey rest = key.part(end, key.tokens.size() - end);
    const int32_t child = keep(node, rest, list.block_ids[num_nodes]);
    if (tree_.num_tokens(child) == static_cast<int32_t>(rest.tokens.size())) {
      node = child;
      ++num_nodes;
    }
  }
  // From the end: the longer a prefix, the fewer share it, so that it is the less recently used.
  for (int32_t i = static_cast<int32_t>(list.block_ids.size()) - 1; i >= 0; --i) {
    if (i < num_nodes) {
      if (const auto kept = retention_of(retention, i * options_.tokens_per_block, prompt_length)) {
        pool_.set_priority(node, kept->priority, kept->duration);
      }
      pool_.touch(node);
      node = tree_.parent(node);
    }
    if (list.block_ids[i] != kFreedBlock) pool_.release(list.block_ids[i]);
  }
  num_reserved_ -= list.num_reserved;
  clear(list);
}

void KvCache::forget(std::span<const BlockCopy> copies) {
  for (const BlockCopy& copy : copies) pool_.forget(copy.destination);
}

void KvCache::release(BlockList& list) {
  for (size_t i = list.block_ids.size(); i-- > 0;) {
    if (list.block_ids[i] != kFreedBlock) pool_.release(list.block_ids[i]);
  }
  num_reserved_ -= list.num_reserved;
  clear(list);
}

}  // namespace inflight
