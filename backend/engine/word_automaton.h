#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/word_list.h"

namespace inflight {

// Finds words in a sequence of symbols that comes one symbol at a time, as Aho and Corasick do ("Efficient string
// matching: an aid to bibliographic search", 1975): a state says which beginning of a word the symbols end with, the
// longest one. A symbol takes about as long whether there are ten words or ten thousand: a step back for each symbol
// before it at most, and a binary search among the symbols that go on.
//
// Immutable, so that threads share it; 28 bytes for each beginning of a word.
class WordAutomaton {
 public:
  using State = int32_t;  // 0 .. num_states - 1
  static constexpr State kStart = 0;
  static constexpr State kNone = -1;

  WordAutomaton() : WordAutomaton(WordList()) {}
  // An empty word is found everywhere. O(n log n) for words of n symbols together.
  explicit WordAutomaton(const WordList& words);

  State next(State state, int32_t symbol) const {
    while (true) {
      const State child = find_child(state, symbol);
      if (child != kNone) return child;
      if (state == kStart) return kStart;
      state = states_[state].fallback;
    }
  }

  // How many of the last symbols are the beginning of a word, or a whole one.
  int32_t depth(State state) const { return states_[state].depth; }

  // The words that the symbols end with, longest first, each as the state after it alone; then kNone.
  State longest_word(State state) const { return states_[state].word == kNone ? next_word(state) : state; }
  State next_word(State state) const { return states_[state].shorter_word; }
  // Which word of the list it is; of equal ones, any.
  int32_t index(State word) const { return states_[word].word; }

  size_t num_states() const { return states_.size() - 1; }

 private:
  struct Node {
    int32_t symbol = kNone;       // the last one of this beginning
    State first_child = kNone;    // children follow each other, by symbol; the next state's first child ends them
    State fallback = kStart;      // of the longest proper ending that is the beginning of a word, too
    State shorter_word = kNone;   // of the longest proper ending that is a word
    int32_t word = kNone;         // index in the list
    int32_t depth = 0;
  };

  State find_child(State state, int32_t symbol) const;

  std::vector<Node> states_;  // by depth; the last one only ends the children of the one before
};

}  // namespace inflight
