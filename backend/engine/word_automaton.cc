#include "engine/word_automaton.h"

#include <algorithm>
#include <numeric>
#include <span>

namespace inflight {
namespace {

// Which of the sorted words begin with what a state stands for.
struct Range {
  size_t begin, end;
};

std::vector<int32_t> sorted_indices(const WordList& words) {
  std::vector<int32_t> indices(words.size());
  std::iota(indices.begin(), indices.end(), 0);
  std::ranges::sort(indices,
                    [&](int32_t a, int32_t b) { return std::ranges::lexicographical_compare(words[a], words[b]); });
  return indices;
}

}  // namespace

WordAutomaton::WordAutomaton(const WordList& words) {
  const std::vector<int32_t> sorted = sorted_indices(words);
  std::vector<Range> ranges{{0, sorted.size()}};
  states_.emplace_back();
  // Breadth first: what a state falls back to is shorter, and has got its children before.
  for (size_t state = 0; state < states_.size(); ++state) {
    auto [word, end] = ranges[state];
    const size_t depth = states_[state].depth;
    if (state != kStart) states_[state].shorter_word = longest_word(states_[state].fallback);
    states_[state].first_child = static_cast<State>(states_.size());
    for (; word < end && words[sorted[word]].size() == depth; ++word) states_[state].word = sorted[word];
    while (word < end) {
      Node child{.symbol = words[sorted[word]][depth], .depth = static_cast<int32_t>(depth) + 1};
      if (state != kStart) child.fallback = next(states_[state].fallback, child.symbol);
      const size_t begin = word;
      while (word < end && words[sorted[word]][depth] == child.symbol) ++word;
      states_.push_back(child);
      ranges.push_back({begin, word});
    }
  }
  states_.push_back({.first_child = static_cast<State>(states_.size())});
}

WordAutomaton::State WordAutomaton::find_child(State state, int32_t symbol) const {
  const auto children = std::span(states_).subspan(states_[state].first_child,
                                                   states_[state + 1].first_child - states_[state].first_child);
  const auto child = std::ranges::lower_bound(children, symbol, {}, &Node::symbol);
  return child == children.end() || child->symbol != symbol ? kNone : static_cast<State>(&*child - states_.data());
}

}  // namespace inflight
