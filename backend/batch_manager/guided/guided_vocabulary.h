#pragma once

#include <xgrammar/tokenizer_info.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <vector>

namespace inflight {

// The bytes that each token adds to a text. Special tokens, end ids, and ids that only the model has add none: they are
// never part of a guided text. Neither are tokens that are not part of any UTF-8 text.
struct GuidedVocabulary {
  xgrammar::TokenizerInfo tokens;

  // What xgrammar allows and should not. Bit i % 32 of word i / 32 stands for token i, as in TokenMasks.
  std::vector<uint32_t> controls;  // tabs and other control characters, except line ends: not in a string of JSON
  std::map<char, std::vector<uint32_t>> not_after;  // a first byte of characters: their second byte is another

  int32_t size() const { return tokens.GetVocabSize(); }
  // What may not follow the token, or null.
  const std::vector<uint32_t>* refused_after(int32_t token) const;
};

// Reads tokenizer_dir/tokenizer.json. vocab_size: of the model.
// Throws Error naming the file and what is wrong with it.
GuidedVocabulary read_guided_vocabulary(const std::filesystem::path& tokenizer_dir, int32_t vocab_size,
                                        const std::vector<int32_t>& end_ids);

}  // namespace inflight
