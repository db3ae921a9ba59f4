#include "batch_manager/guided/guide_matcher.h"

#include <algorithm>

#include "batch_manager/guided/compiled_guide.h"
#include "common/rounding.h"

namespace inflight {
namespace {

void fill_mask(xgrammar::GrammarMatcher& matcher, int32_t vocab_size, std::span<uint32_t> words) {
  int64_t size = static_cast<int64_t>(words.size());
  DLTensor mask{words.data(), {kDLCPU, 0}, 1, xgrammar::GetBitmaskDLType(), &size, nullptr, 0};
  matcher.FillNextTokenBitmask(&mask);
  words.back() &= ~0u >> (31 - (vocab_size - 1) % 32);  // there are no tokens beyond
}

bool accepts(xgrammar::GrammarMatcher& matcher, const std::string& text) {
  return text.empty() || matcher.AcceptString(text);
}

}  // namespace

GuideMatcher::GuideMatcher(const CompiledGuide& guide) : guide_(guide), matcher_(guide.grammar) {}

bool GuideMatcher::accept(int32_t token) {
  const GuidedVocabulary& vocabulary = *guide_.vocabulary;
  const auto first = is_at_begin_ ? vocabulary.first_texts.find(token) : vocabulary.first_texts.end();
  const bool is_first = first != vocabulary.first_texts.end();
  if (is_first ? !accepts(matcher_, first->second) : !matcher_.AcceptToken(token)) return false;
  is_at_begin_ = false;
  refused_ = vocabulary.refused_after(is_first ? first->second : vocabulary.tokens.GetDecodedVocab()[token]);
  return true;
}

bool GuideMatcher::fill(std::span<uint32_t> words) {
  if (is_at_begin_) {
    std::ranges::copy(guide_.first_tokens, words.begin());
  } else {
    fill_mask(matcher_, guide_.vocabulary->size(), words);
  }
  if (refused_ != nullptr) {
    for (size_t i = 0; i < words.size(); ++i) words[i] &= ~(*refused_)[i];
  }
  return std::ranges::any_of(words, [](uint32_t word) { return word != 0; });
}

std::vector<uint32_t> first_tokens(const CompiledGuide& guide) {
  const GuidedVocabulary& vocabulary = *guide.vocabulary;
  xgrammar::GrammarMatcher matcher(guide.grammar);
  std::vector<uint32_t> words(divide_up(vocabulary.size(), 32));
  fill_mask(matcher, vocabulary.size(), words);
  for (const auto& [token, text] : vocabulary.first_texts) {
    const uint32_t bit = 1u << token % 32;
    words[token / 32] &= ~bit;
    if (!accepts(matcher, text)) continue;
    words[token / 32] |= bit;
    if (!text.empty()) matcher.Rollback(1);
  }
  return words;
}

}  // namespace inflight
