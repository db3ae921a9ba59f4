#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace inflight {

// Whether `tokens` ends with `word`, as everything does with an empty one: a stop word that has just been
// generated, a bad word that the next token would complete.
inline bool ends_with(std::span<const int32_t> tokens, std::span<const int32_t> word) {
  return word.size() <= tokens.size() && std::ranges::equal(word, tokens.last(word.size()));
}

}  // namespace inflight
