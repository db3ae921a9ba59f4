#include "batch_manager/guided/guide_matcher.h"

#include <algorithm>

#include "batch_manager/guided/compiled_guide.h"

namespace inflight {
namespace {

void remove(std::span<uint32_t> words, const std::vector<uint32_t>& removed) {
  for (size_t i = 0; i < words.size(); ++i) words[i] &= ~removed[i];
}

}  // namespace

GuideMatcher::GuideMatcher(const CompiledGuide& guide) : guide_(guide), matcher_(guide.grammar) {}

bool GuideMatcher::accept(int32_t token) {
  if (!matcher_.AcceptToken(token)) return false;
  refused_ = guide_.vocabulary->refused_after(token);
  return true;
}

bool GuideMatcher::fill(std::span<uint32_t> words) {
  const GuidedVocabulary& vocabulary = *guide_.vocabulary;
  int64_t size = static_cast<int64_t>(words.size());
  DLTensor mask{words.data(), {kDLCPU, 0}, 1, xgrammar::GetBitmaskDLType(), &size, nullptr, 0};
  matcher_.FillNextTokenBitmask(&mask);
  words.back() &= ~0u >> (31 - (vocabulary.size() - 1) % 32);  // there are no tokens beyond
  if (guide_.is_json) remove(words, vocabulary.controls);
  if (refused_ != nullptr) remove(words, *refused_);
  return std::ranges::any_of(words, [](uint32_t word) { return word != 0; });
}

}  // namespace inflight
