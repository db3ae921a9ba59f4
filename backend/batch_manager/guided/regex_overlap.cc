#include <algorithm>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "batch_manager/guided/regex.h"

namespace inflight {
namespace {

using Kind = Regex::Kind;

constexpr size_t kMaxStates = 2000;  // of each expression
constexpr size_t kMaxPairs = 200'000;

// Signs beyond Unicode that begin and end every text, so that ^ and $ match like characters.
constexpr int32_t kBeginSign = 0x110000, kEndSign = 0x110001;

// A nondeterministic automaton (Thompson's construction). State 0 is where texts begin.
class Automaton {
 public:
  // All texts that match `regex` from begin to end; or those that have a part that matches it.
  static std::optional<Automaton> of_whole(const Regex& regex) {
    Automaton automaton;
    int32_t state = automaton.add_state();
    state = automaton.add_transition(state, sign(kBeginSign));
    automaton.signs_match_ = false;
    state = automaton.add(regex, state);
    automaton.end_ = automaton.add_transition(state, sign(kEndSign));
    if (automaton.is_too_large_) return std::nullopt;
    return automaton;
  }
  static std::optional<Automaton> of_part(const Regex& regex) {
    Automaton automaton;
    automaton.signs_match_ = true;
    const CodePoints anything = CodePoints::all() | sign(kBeginSign) | sign(kEndSign);
    const int32_t begin = automaton.add_state();
    automaton.transitions_[begin].push_back({anything, begin});
    automaton.end_ = automaton.add(regex, begin);
    automaton.transitions_[automaton.end_].push_back({anything, automaton.end_});
    if (automaton.is_too_large_) return std::nullopt;
    return automaton;
  }

  struct Transition {
    CodePoints characters;  // empty: the transition takes none
    int32_t target;
  };
  const std::vector<Transition>& transitions(int32_t state) const { return transitions_[state]; }
  bool is_end(int32_t state) const { return state == end_; }

 private:
  static CodePoints sign(int32_t sign) { return {{sign, sign}}; }

  int32_t add_state() {
    is_too_large_ = transitions_.size() >= kMaxStates;
    if (is_too_large_) return 0;
    transitions_.emplace_back();
    return static_cast<int32_t>(transitions_.size()) - 1;
  }

  int32_t add_transition(int32_t from, CodePoints characters) {
    const int32_t to = add_state();
    transitions_[from].push_back({std::move(characters), to});
    return to;
  }

  // Returns where the expression ends if it begins at `state`.
  int32_t add(const Regex& regex, int32_t state) {
    if (is_too_large_) return state;
    switch (regex.kind) {
      case Kind::kBegin: return signs_match_ ? add_transition(state, sign(kBeginSign)) : state;
      case Kind::kEnd: return signs_match_ ? add_transition(state, sign(kEndSign)) : state;
      case Kind::kCharacter: return add_transition(state, regex.characters);
      case Kind::kSequence:
        for (const Regex& child : regex.children) state = add(child, state);
        return state;
      case Kind::kAlternatives: {
        const int32_t end = add_state();
        for (const Regex& child : regex.children)
          transitions_[add(child, add_transition(state, {}))].push_back({{}, end});
        return end;
      }
      case Kind::kRepeat: return add_repeat(regex, state);
    }
    return state;
  }

  int32_t add_repeat(const Regex& regex, int32_t state) {
    for (int32_t i = 0; i < regex.min && !is_too_large_; ++i) state = add(regex.children[0], state);
    if (regex.max == Regex::kNoLimit) {
      const int32_t loop = add_transition(state, {});
      transitions_[add(regex.children[0], loop)].push_back({{}, loop});
      return add_transition(loop, {});
    }
    const int32_t end = add_state();
    for (int32_t i = regex.min; i < regex.max && !is_too_large_; ++i) {
      transitions_[state].push_back({{}, end});
      state = add(regex.children[0], add_transition(state, {}));
    }
    transitions_[state].push_back({{}, end});
    return end;
  }

  std::vector<std::vector<Transition>> transitions_;
  int32_t end_ = 0;
  bool signs_match_ = false;
  bool is_too_large_ = false;
};

}  // namespace

bool may_overlap(const Regex& whole, const Regex& part) {
  const auto a = Automaton::of_whole(whole);
  const auto b = Automaton::of_part(part);
  if (!a || !b) return true;
  using Pair = std::pair<int32_t, int32_t>;
  std::set<Pair> seen = {{0, 0}};
  std::vector<Pair> reached = {{0, 0}};
  const auto reach = [&](Pair pair) {
    if (seen.insert(pair).second) reached.push_back(pair);
  };
  while (!reached.empty()) {
    const auto [left, right] = reached.back();
    reached.pop_back();
    if (a->is_end(left) && b->is_end(right)) return true;
    if (seen.size() > kMaxPairs) return true;
    for (const auto& transition : a->transitions(left)) {
      if (transition.characters.empty()) reach({transition.target, right});
    }
    for (const auto& transition : b->transitions(right)) {
      if (transition.characters.empty()) reach({left, transition.target});
      for (const auto& other : a->transitions(left)) {
        if (!(transition.characters & other.characters).empty()) reach({other.target, transition.target});
      }
    }
  }
  return false;
}

}  // namespace inflight
