#pragma once

#include <xgrammar/tokenizer_info.h>

#include <cstdint>
#include <filesystem>
#include <vector>

namespace inflight {

// The bytes that each token adds to a text. Special tokens, end ids, and ids that only the model has add none: they are
// never part of a guided text. Neither are tokens that spell surrogates, which UTF-8 does not have.
struct GuidedVocabulary {
  xgrammar::TokenizerInfo tokens;

  // What xgrammar allows and should not. Bit i % 32 of word i / 32 stands for token i, as in TokenMasks.
  std::vector<uint32_t> controls;  // tabs and other control characters, except line ends: not in a string of JSON
  std::vector<uint32_t> surrogates;  // those that spell a surrogate after kSurrogateStart

  int32_t size() const { return tokens.GetVocabSize(); }
  bool ends_in_surrogate_start(int32_t token) const;
};

// Reads tokenizer_dir/tokenizer.json. vocab_size: of the model.
// Throws Error naming the file and what is wrong with it.
GuidedVocabulary read_guided_vocabulary(const std::filesystem::path& tokenizer_dir, int32_t vocab_size,
                                        const std::vector<int32_t>& end_ids);

}  // namespace inflight
