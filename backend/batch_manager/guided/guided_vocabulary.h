#pragma once

#include <xgrammar/tokenizer_info.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace inflight {

// The bytes that each token adds to a text. Special tokens, end ids, and ids that only the model has add none: they are
// never part of a guided text. Neither are tokens that are not part of any UTF-8 text.
struct GuidedVocabulary {
  xgrammar::TokenizerInfo tokens;
  std::map<int32_t, std::string> first_texts;  // of tokens that add something else at a text's begin, maybe nothing

  // What xgrammar allows and should not: after a first byte of characters, their second byte is another. Bit i % 32 of
  // word i / 32 stands for token i, as in SequenceSlice::mask.
  std::map<char, std::vector<uint32_t>> not_after;

  int32_t size() const { return tokens.GetVocabSize(); }
  // What may not follow a text, or null.
  const std::vector<uint32_t>* refused_after(const std::string& text) const;
};

// Reads tokenizer_dir/tokenizer.json. vocab_size: of the model.
// Throws Error naming the file and what is wrong with it.
GuidedVocabulary read_guided_vocabulary(const std::filesystem::path& tokenizer_dir, int32_t vocab_size,
                                        const std::vector<int32_t>& end_ids);

}  // namespace inflight
