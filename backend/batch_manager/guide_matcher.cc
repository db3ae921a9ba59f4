#include "batch_manager/guide_matcher.h"

#include <algorithm>

#include "batch_manager/guide_compiler.h"

namespace inflight {

GuideMatcher::GuideMatcher(const CompiledGuide& guide)
    : matcher_(guide.grammar()), last_word_(~0u >> (31 - (guide.vocab_size() - 1) % 32)) {}

bool GuideMatcher::accept(int32_t token) { return matcher_.AcceptToken(token); }

bool GuideMatcher::fill(std::span<uint32_t> words) {
  int64_t size = static_cast<int64_t>(words.size());
  DLTensor mask{words.data(), {kDLCPU, 0}, 1, xgrammar::GetBitmaskDLType(), &size, nullptr, 0};
  matcher_.FillNextTokenBitmask(&mask);
  words.back() &= last_word_;
  return std::ranges::any_of(words, [](uint32_t word) { return word != 0; });
}

}  // namespace inflight
