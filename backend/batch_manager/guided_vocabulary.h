#pragma once

#include <xgrammar/tokenizer_info.h>

#include <cstdint>
#include <filesystem>
#include <vector>

namespace inflight {

// The bytes that each token of tokenizer_dir/tokenizer.json adds to a text. Special tokens, end_ids, and ids that only
// the model has add none: they are never part of a guided text. vocab_size: of the model.
// Throws Error naming the file and what is wrong with it.
xgrammar::TokenizerInfo read_guided_vocabulary(const std::filesystem::path& tokenizer_dir, int32_t vocab_size,
                                               const std::vector<int32_t>& end_ids);

}  // namespace inflight
