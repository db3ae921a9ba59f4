#include "batch_manager/prefix_tree.h"

#include <algorithm>

namespace inflight {
namespace {

uint64_t extra_id(std::span<const uint64_t> ids, int32_t index) {
  return index < static_cast<int32_t>(ids.size()) ? ids[index] : 0;
}

}  // namespace

PrefixKey PrefixKey::part(size_t begin, size_t count) const {
  const size_t first_extra = std::min(begin, extra_ids.size());
  return {tokens.subspan(begin, count), lora_task_id,
          extra_ids.subspan(first_extra, std::min(count, extra_ids.size() - first_extra))};
}

PrefixTree::PrefixTree(int32_t max_nodes, int32_t tokens_per_block)
    : tokens_per_block_(tokens_per_block),
      nodes_(max_nodes + 1),
      tokens_(static_cast<size_t>(max_nodes + 1) * tokens_per_block) {
  unused_.reserve(max_nodes);
  for (int32_t node = max_nodes; node > kRoot; --node) {
    unused_.push_back(node);
    nodes_[node].children.reserve(1);  // most have no more: a generated text goes on in one way
  }
}

std::span<const int32_t> PrefixTree::tokens(int32_t node) const {
  return std::span(tokens_).subspan(static_cast<size_t>(node) * tokens_per_block_, nodes_[node].num_tokens);
}

PrefixTree::Comparison PrefixTree::compare(int32_t node_index, const PrefixKey& block) const {
  const Node& node = nodes_[node_index];
  if (node.lora_task_id != block.lora_task_id) return {0, node.lora_task_id < block.lora_task_id ? -1 : 1};
  const auto mine = tokens(node_index);
  const auto theirs = block.tokens;
  const int32_t length = static_cast<int32_t>(std::min(mine.size(), theirs.size()));
  int32_t common =
      static_cast<int32_t>(std::mismatch(mine.begin(), mine.begin() + length, theirs.begin()).first - mine.begin());
  if (!node.extra_ids.empty() || !block.extra_ids.empty()) {
    for (int32_t i = 0; i < common; ++i) {
      const uint64_t my_id = extra_id(node.extra_ids, i), their_id = extra_id(block.extra_ids, i);
      if (my_id != their_id) return {i, my_id < their_id ? -1 : 1};
    }
  }
  if (common < length) return {common, mine[common] < theirs[common] ? -1 : 1};
  return {common, static_cast<int>(mine.size()) - static_cast<int>(theirs.size())};
}

std::vector<int32_t>::const_iterator PrefixTree::lower_bound(const std::vector<int32_t>& children,
                                                             const PrefixKey& block) const {
  return std::lower_bound(children.begin(), children.end(), block,
                          [this](int32_t child, const PrefixKey& key) { return compare(child, key).order < 0; });
}

PrefixTree::Match PrefixTree::longest_match(int32_t parent, const PrefixKey& block) const {
  // In sorted order, what agrees longest is next to the place where the block would be.
  const auto& children = nodes_[parent].children;
  const auto next = lower_bound(children, block);
  Match match;
  const auto consider = [&](int32_t child) {
    const int32_t common = compare(child, block).num_common;
    if (common > match.num_tokens) match = {child, common};
  };
  if (next != children.end()) consider(*next);
  if (next != children.begin()) consider(*std::prev(next));
  return match;
}

int32_t PrefixTree::insert(int32_t parent, const PrefixKey& block) {
  const int32_t index = unused_.back();
  unused_.pop_back();
  Node& node = nodes_[index];
  node.parent = parent;
  node.num_tokens = static_cast<int32_t>(block.tokens.size());
  node.lora_task_id = block.lora_task_id;
  node.extra_ids.assign(block.extra_ids.begin(), block.extra_ids.end());
  std::copy(block.tokens.begin(), block.tokens.end(), tokens_.begin() + static_cast<size_t>(index) * tokens_per_block_);
  auto& siblings = nodes_[parent].children;
  siblings.insert(lower_bound(siblings, block), index);
  return index;
}

void PrefixTree::remove(int32_t leaf) {
  Node& node = nodes_[leaf];
  auto& siblings = nodes_[node.parent].children;
  siblings.erase(std::find(siblings.begin(), siblings.end(), leaf));
  ++node.generation;
  unused_.push_back(leaf);
}

int32_t PrefixTree::last_leaf(int32_t node) const {
  while (!nodes_[node].children.empty()) node = nodes_[node].children.back();
  return node;
}

}  // namespace inflight
