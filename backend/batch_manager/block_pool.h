#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "batch_manager/indexed_heap.h"
#include "batch_manager/prefix_tree.h"
#include "batch_manager/request.h"
#include "engine/engine.h"

namespace inflight {

// The blocks of the device and of the host tier, how many hold on to each of them, and what is kept in those that
// nobody holds. A block has a node of the prefix tree while the tree leads to its tokens.
//
// Without references, a block with a node is cached: it waits in its tier's eviction order, lowest priority first, then
// least recently used. One without a node is empty. Whoever holds a block may go on reading it after the tree has
// lost its node. Blocks num_blocks .. num_blocks + num_host_blocks - 1 are the host tier's.
class BlockPool {
 public:
  using Clock = std::chrono::steady_clock;

  // `tree`: room for a node a block; its leaves are removed when they lose their blocks.
  BlockPool(int32_t num_blocks, int32_t num_host_blocks, PrefixTree& tree);

  int32_t num_free() const { return num_empty() + num_cached(); }  // of the device
  int32_t num_empty() const { return static_cast<int32_t>(device_.empty.size()); }
  int32_t num_cached() const { return device_.evictable.size(); }
  int32_t num_empty_on_host() const { return static_cast<int32_t>(host_.empty.size()); }
  // References to device blocks beyond the first of each.
  int32_t num_shared_references() const { return num_shared_references_; }

  bool is_on_host(int32_t block) const { return block >= num_blocks_; }
  bool is_in_use(int32_t block) const { return references_[block] > 0; }
  bool is_shared(int32_t block) const { return references_[block] > 1; }
  // Whether a copy since the last take_copies() brings the block's contents from the host.
  bool is_arriving(int32_t block) const { return onboarded_in_[block] == batch_; }
  int32_t block_of(int32_t node) const { return blocks_[node]; }

  // A device block with one reference. There must be a free one; when none is empty, a cached one loses its tokens or
  // moves to the host.
  int32_t take();
  int32_t take_copy(int32_t source);  // with the contents of a cached block, of either tier, or of one in use
  void acquire(int32_t block);  // one that is in use or has a node
  void release(int32_t block);  // its node, if any, becomes the most recently used
  // Swaps the caller's only reference to a host block for one to a device block, where its contents go.
  int32_t onboard(int32_t host_block);

  // The tree leads to this block by this node, which had none, or one of the host tier.
  void bind(int32_t node, int32_t block);
  // The block does not hold what its node says, nor do those that follow it: the tree does not lead to them any more.
  void forget(int32_t block);
  void drop(int32_t leaf);  // removes the node; its block is empty unless somebody holds it
  void touch(int32_t node);  // most recently used
  void set_priority(int32_t node, RetentionPriority priority, std::optional<std::chrono::milliseconds> duration);

  std::span<const BlockCopy> take_copies();

  // Since the start.
  uint64_t num_evicted() const { return num_evicted_; }
  uint64_t num_offloaded() const { return num_offloaded_; }
  uint64_t num_onboarded() const { return num_onboarded_; }

 private:
  struct EvictionKey {
    RetentionPriority priority;
    uint64_t last_used;
    auto operator<=>(const EvictionKey&) const = default;
  };
  struct Tier {
    Tier(int32_t num_blocks, int32_t first_block, int32_t num_nodes);
    std::vector<int32_t> empty;  // used as a stack: the last block given back is still warm in cache
    IndexedHeap<EvictionKey> evictable;  // nodes
  };

  Tier& tier(int32_t block) { return is_on_host(block) ? host_ : device_; }
  void make_empty_block();
  void vacate(int32_t block);  // takes its node from it; it is empty then unless somebody holds it
  void evict(int32_t node);  // with all that follow it, as the tree does not lead to them any more
  void offload(int32_t node);
  void expire_priorities();

  PrefixTree& tree_;
  const int32_t num_blocks_;
  Tier device_;
  Tier host_;
  std::vector<int32_t> references_;  // [blocks]
  std::vector<int32_t> nodes_;  // [blocks], or kNone
  std::vector<uint64_t> onboarded_in_;  // [blocks], a batch of copies
  std::vector<int32_t> blocks_;  // [nodes]
  std::vector<RetentionPriority> priorities_;  // [nodes]
  IndexedHeap<Clock::time_point> expirations_;  // of nodes' priorities
  uint64_t uses_ = 0;
  int32_t num_shared_references_ = 0;

  uint64_t batch_ = 1;
  std::vector<BlockCopy> copies_, taken_copies_;

  uint64_t num_evicted_ = 0;
  uint64_t num_offloaded_ = 0;
  uint64_t num_onboarded_ = 0;
};

}  // namespace inflight
