#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "batch_manager/request.h"
#include "batch_manager/words/text_decoder.h"
#include "batch_manager/words/token_texts.h"
#include "engine/word_automaton.h"

namespace inflight {

// How far a sequence has come among its stop words.
struct StopProgress {
  WordAutomaton::State words = WordAutomaton::kStart;
  WordAutomaton::State texts = WordAutomaton::kStart;
  TextDecoder decoder;
  bool has_text = false;
  int32_t num_tokens = 0;
  int64_t length = 0;  // bytes of the text's whole characters
};

// What ends a sequence: sequences of tokens, and texts wherever they are in its text, which is what inflight.text makes
// of its tokens. The match that ends first wins, and of several the longest. Immutable, shared by sequences.
class StopWords {
 public:
  StopWords() = default;
  // token_texts may be null if there are no texts.
  StopWords(const WordList& words, const StopTexts& texts, std::shared_ptr<const TokenTexts> token_texts);

  // The sequence goes on with `token`.
  std::optional<StopMatch> advance(StopProgress& progress, int32_t token) const;
  // It ends for another reason. Then the beginning of a character is U+FFFD, which a stop text may end with.
  std::optional<StopMatch> finish(StopProgress& progress) const;

  // Whether text must wait until it is clear that no stop text begins with it, which would be left out.
  bool holds_text_back() const { return has_texts() && !include_in_output_; }
  // How many bytes of the text are none of those.
  int64_t num_sure_bytes(const StopProgress& progress) const { return progress.length - texts_.depth(progress.texts); }

 private:
  bool has_texts() const { return token_texts_ != nullptr; }
  std::string next_text(StopProgress& progress, int32_t token) const;
  std::optional<StopMatch> find(StopProgress& progress, std::string text) const;

  WordAutomaton words_;
  WordAutomaton texts_;  // of bytes
  std::shared_ptr<const TokenTexts> token_texts_;
  bool include_in_output_ = true;
  bool skip_special_tokens_ = true;
  bool follows_prompt_ = false;
  int32_t min_tokens_ = 0;
};

}  // namespace inflight
