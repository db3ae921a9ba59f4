#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace inflight {

// Tokens whose cached keys and values may stand for one another's: they agree in the tokens and in these.
struct PrefixKey {
  std::span<const int32_t> tokens;
  uint64_t lora_task_id = 0;
  std::span<const uint64_t> extra_ids = {};  // one for each of the first tokens; generated tokens have 0

  PrefixKey part(size_t begin, size_t count) const;
};

// A node, and whether it is still that node.
struct PrefixPosition {
  int32_t node = 0;
  uint32_t generation = 0;
};

// Which blocks of tokens follow which. Below the root, a node is one block: tokens_per_block tokens or, in a leaf,
// fewer. No child of a node is the beginning of another. Children are sorted, so that a binary search that compares
// the tokens themselves finds the one that agrees longest with others.
class PrefixTree {
 public:
  static constexpr int32_t kNone = -1;
  static constexpr int32_t kRoot = 0;

  // Nodes have the numbers 0 .. max_nodes, the root included.
  PrefixTree(int32_t max_nodes, int32_t tokens_per_block);

  int32_t num_nodes() const { return static_cast<int32_t>(nodes_.size()); }

  struct Match {
    int32_t node = kNone;    // none if not even the first token agrees
    int32_t num_tokens = 0;  // that agree
  };
  // The child that agrees with the most of the first tokens of `block`.
  Match longest_match(int32_t parent, const PrefixKey& block) const;

  // There must be room, and no child that begins with `block` or that `block` begins with.
  int32_t insert(int32_t parent, const PrefixKey& block);
  void remove(int32_t leaf);

  int32_t parent(int32_t node) const { return nodes_[node].parent; }
  int32_t num_tokens(int32_t node) const { return nodes_[node].num_tokens; }
  int32_t last_leaf(int32_t node) const;  // a leaf below it, or itself

  PrefixPosition position(int32_t node) const { return {node, nodes_[node].generation}; }
  bool contains(PrefixPosition position) const { return nodes_[position.node].generation == position.generation; }

 private:
  struct Node {
    int32_t parent = kNone;
    int32_t num_tokens = 0;
    uint32_t generation = 0;  // counts removals
    uint64_t lora_task_id = 0;
    std::vector<uint64_t> extra_ids;
    std::vector<int32_t> children;  // sorted by LoRA id, then token by token by token and extra id
  };
  struct Comparison {
    int32_t num_common;  // first tokens
    int order;           // < 0: the node sorts before the block; 0: equal; > 0: after it
  };

  std::span<const int32_t> tokens(int32_t node) const;
  Comparison compare(int32_t node, const PrefixKey& block) const;
  std::vector<int32_t>::const_iterator lower_bound(const std::vector<int32_t>& children, const PrefixKey& block) const;

  const int32_t tokens_per_block_;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;  // [nodes, tokens_per_block]
  std::vector<int32_t> unused_;
};

}  // namespace inflight
