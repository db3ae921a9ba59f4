#pragma once

#include <xgrammar/matcher.h>

#include <cstdint>
#include <span>
#include <vector>

namespace inflight {

class CompiledGuide;

// Where one text stands in its guide, which must live as long. Not thread-safe.
class GuideMatcher {
 public:
  explicit GuideMatcher(const CompiledGuide& guide);

  // False: the text would not follow its guide. The text is then as before.
  bool accept(int32_t token);

  // Whether the text could end here.
  bool is_complete() const { return matcher_.IsCompleted(); }

  // The tokens that may continue the text. words: [(vocab_size + 31) / 32], as in SequenceSlice::mask.
  // Returns whether there are any.
  bool fill(std::span<uint32_t> words);

 private:
  const CompiledGuide& guide_;
  xgrammar::GrammarMatcher matcher_;
  bool is_at_begin_ = true;
  const std::vector<uint32_t>* refused_ = nullptr;  // in the middle of a character; or null
};

// CompiledGuide::first_tokens of a guide that is otherwise complete; no bit is set if no text of the tokens follows it.
std::vector<uint32_t> first_tokens(const CompiledGuide& guide);

}  // namespace inflight
