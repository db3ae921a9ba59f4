#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "engine/word_automaton.h"

namespace inflight {

// Token sequences that must never be completed, ready to be looked up. Copies share what they hold.
class BadWords {
 public:
  BadWords() = default;
  // An empty word is none.
  explicit BadWords(const WordList& words);
  BadWords(std::initializer_list<std::vector<int32_t>> words) : BadWords(WordList(words)) {}

  bool empty() const { return words_ == nullptr; }
  // What it was made from, so that another process can make it anew.
  const WordList& list() const;
  // How many tokens before the next one matter.
  int32_t look_back() const { return empty() ? 0 : words_->look_back; }

  // Of a sequence that begins: WordAutomaton::kStart.
  WordAutomaton::State next(WordAutomaton::State state, int32_t token) const {
    return empty() ? WordAutomaton::kStart : words_->beginnings.next(state, token);
  }

  // Calls ban(token) for each token that would complete a word after a sequence in `state`.
  template <class Ban>
  void for_each_banned(WordAutomaton::State state, Ban&& ban) const {
    if (empty()) return;
    const WordAutomaton& beginnings = words_->beginnings;
    for (auto word = beginnings.longest_word(state); word != WordAutomaton::kNone; word = beginnings.next_word(word)) {
      const int32_t end = words_->first_token[word + 1];
      for (int32_t i = words_->first_token[word]; i < end; ++i) ban(words_->last_tokens[i]);
    }
  }

 private:
  struct Words {
    WordList list;
    WordAutomaton beginnings;          // each word without its last token
    std::vector<int32_t> first_token;  // [num_states + 1], in last_tokens
    std::vector<int32_t> last_tokens;  // of the words that begin with a state, one state after the other
    int32_t look_back = 0;
  };
  std::shared_ptr<const Words> words_;  // null: none
};

}  // namespace inflight
