#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace inflight::test {

// As everything does with an empty word.
inline bool ends_with(std::span<const int32_t> symbols, std::span<const int32_t> word) {
  return word.size() <= symbols.size() && std::ranges::equal(word, symbols.last(word.size()));
}

}  // namespace inflight::test
