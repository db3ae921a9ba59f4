#include "batch_manager/block_pool.h"

#include <utility>

namespace inflight {

BlockPool::Tier::Tier(int32_t num_blocks, int32_t first_block, int32_t num_nodes) : evictable(num_nodes) {
  empty.reserve(num_blocks);
  for (int32_t block = first_block + num_blocks - 1; block >= first_block; --block) empty.push_back(block);
}

BlockPool::BlockPool(int32_t num_blocks, int32_t num_host_blocks, PrefixTree& tree)
    : tree_(tree),
      num_blocks_(num_blocks),
      device_(num_blocks, 0, tree.num_nodes()),
      host_(num_host_blocks, num_blocks, tree.num_nodes()),
      references_(num_blocks + num_host_blocks),
      nodes_(num_blocks + num_host_blocks, PrefixTree::kNone),
      onboarded_in_(num_blocks + num_host_blocks),
      blocks_(tree.num_nodes(), PrefixTree::kNone),
      priorities_(tree.num_nodes()),
      expirations_(tree.num_nodes()) {
  copies_.reserve(num_blocks);
  taken_copies_.reserve(num_blocks);
}

int32_t BlockPool::take() {
  if (device_.empty.empty()) make_empty_block();
  const int32_t block = device_.empty.back();
  device_.empty.pop_back();
  references_[block] = 1;
  return block;
}

int32_t BlockPool::take_copy(int32_t source) {
  // A free device block may be the very one that is taken: its contents are in place then.
  const bool holds = is_on_host(source) || is_in_use(source);
  if (holds) {
    acquire(source);
  } else {
    touch(nodes_[source]);
  }
  const int32_t block = take();
  if (block != source) copies_.push_back({source, block});
  if (is_on_host(source)) {
    ++num_onboarded_;
    onboarded_in_[block] = batch_;
  } else if (is_arriving(source)) {
    onboarded_in_[block] = batch_;
  }
  if (holds) release(source);
  return block;
}

void BlockPool::acquire(int32_t block) {
  if (references_[block]++ == 0) {
    tier(block).evictable.erase(nodes_[block]);
  } else {
    ++num_shared_references_;
  }
}

void BlockPool::release(int32_t block) {
  if (--references_[block] > 0) {
    --num_shared_references_;
  } else if (nodes_[block] == PrefixTree::kNone) {
    tier(block).empty.push_back(block);
  } else {
    touch(nodes_[block]);
  }
}

int32_t BlockPool::onboard(int32_t host_block) {
  const int32_t block = take();
  copies_.push_back({host_block, block});
  ++num_onboarded_;
  onboarded_in_[block] = batch_;
  if (nodes_[host_block] != PrefixTree::kNone) bind(nodes_[host_block], block);
  release(host_block);
  return block;
}

void BlockPool::bind(int32_t node, int32_t block) {
  if (blocks_[node] == PrefixTree::kNone) {
    priorities_[node] = kDefaultRetentionPriority;
  } else {
    vacate(blocks_[node]);
  }
  blocks_[node] = block;
  nodes_[block] = node;
}

void BlockPool::vacate(int32_t block) {
  const int32_t node = std::exchange(nodes_[block], PrefixTree::kNone);
  if (is_in_use(block)) return;
  tier(block).evictable.erase(node);
  tier(block).empty.push_back(block);
}

void BlockPool::drop(int32_t leaf) {
  vacate(std::exchange(blocks_[leaf], PrefixTree::kNone));
  expirations_.erase(leaf);
  tree_.remove(leaf);
}

void BlockPool::touch(int32_t node) {
  const int32_t block = blocks_[node];
  if (!is_in_use(block)) tier(block).evictable.set(node, {priorities_[node], ++uses_});
}

void BlockPool::set_priority(int32_t node, RetentionPriority priority,
                             std::optional<std::chrono::milliseconds> duration) {
  priorities_[node] = priority;
  if (duration) {
    expirations_.set(node, Clock::now() + *duration);
  } else {
    expirations_.erase(node);
  }
}

void BlockPool::expire_priorities() {
  if (expirations_.empty()) return;
  const auto now = Clock::now();
  while (!expirations_.empty() && expirations_.top_key() <= now) {
    const int32_t node = expirations_.top();
    expirations_.erase(node);
    priorities_[node] = kDefaultRetentionPriority;
    auto& evictable = tier(blocks_[node]).evictable;
    if (evictable.contains(node)) evictable.set(node, {kDefaultRetentionPriority, evictable.key(node).last_used});
  }
}

void BlockPool::make_empty_block() {
  expire_priorities();
  const int32_t node = device_.evictable.top();
  const bool is_better_than_host = !host_.evictable.empty() && host_.evictable.top_key() < device_.evictable.key(node);
  if (host_.empty.empty() && is_better_than_host) {
    evict(host_.evictable.top());
    if (!device_.empty.empty()) return;  // blocks here followed the one on the host
  }
  if (host_.empty.empty()) {
    evict(node);
  } else {
    offload(node);
  }
}

void BlockPool::evict(int32_t node) {
  const int32_t end = tree_.parent(node);
  for (int32_t next = node; next != end;) {
    const int32_t leaf = tree_.last_leaf(next);
    next = tree_.parent(leaf);
    if (!is_in_use(blocks_[leaf])) ++num_evicted_;
    drop(leaf);
  }
}

void BlockPool::forget(int32_t block) {
  if (nodes_[block] != PrefixTree::kNone) evict(nodes_[block]);
}

void BlockPool::offload(int32_t node) {
  const int32_t source = blocks_[node];
  const EvictionKey key = device_.evictable.key(node);
  const int32_t destination = host_.empty.back();
  host_.empty.pop_back();
  vacate(source);
  blocks_[node] = destination;
  nodes_[destination] = node;
  host_.evictable.set(node, key);
  copies_.push_back({source, destination});
  ++num_offloaded_;
}

std::span<const BlockCopy> BlockPool::take_copies() {
  taken_copies_.clear();
  std::swap(copies_, taken_copies_);
  ++batch_;
  return taken_copies_;
}

}  // namespace inflight
