#include "batch_manager/prompt_lookup.h"

#include <algorithm>
#include <utility>

namespace inflight {
namespace {

constexpr size_t kSmallestTable = 64;

// Multiply and rotate, as in FxHash, then xxHash's last mix: the low bits index the table.
size_t hash(std::span<const int32_t> tokens) {
  uint64_t h = 0;
  for (const int32_t token : tokens) h = ((h << 5 | h >> 59) ^ static_cast<uint32_t>(token)) * 0x9E3779B97F4A7C15ull;
  return h ^ h >> 32;
}

}  // namespace

PromptLookup::PromptLookup(int32_t max_ngram) {
  for (int32_t n = 1; n <= max_ngram; ++n) last_ends_.emplace_back(n);
}

void PromptLookup::append(std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    text_.push_back(token);
    follows_ = 0;
    for (LastEnds& last_ends : last_ends_) {
      const int32_t last_end = last_ends.exchange(text_);
      if (last_end > 0) follows_ = last_end;
    }
  }
}

std::span<const int32_t> PromptLookup::draft(int32_t max_drafts) const {
  if (follows_ == 0) return {};
  const auto rest = std::span(text_).subspan(follows_);
  return rest.first(std::min(rest.size(), static_cast<size_t>(std::max(max_drafts, 0))));
}

int32_t PromptLookup::LastEnds::exchange(std::span<const int32_t> text) {
  if (text.size() < n_) return 0;
  if (2 * num_used_ >= ends_.size()) grow(text);
  int32_t& end = ends_[find(text)];
  if (end == 0) ++num_used_;
  return std::exchange(end, static_cast<int32_t>(text.size()));
}

size_t PromptLookup::LastEnds::find(std::span<const int32_t> text) const {
  const auto ngram = text.last(n_);
  const size_t mask = ends_.size() - 1;
  size_t i = hash(ngram) & mask;
  while (ends_[i] != 0 && !std::ranges::equal(text.subspan(ends_[i] - n_, n_), ngram)) i = (i + 1) & mask;
  return i;
}

void PromptLookup::LastEnds::grow(std::span<const int32_t> text) {
  const std::vector<int32_t> ends =
      std::exchange(ends_, std::vector<int32_t>(std::max(kSmallestTable, 2 * ends_.size())));
  for (const int32_t end : ends) {
    if (end != 0) ends_[find(text.first(end))] = end;
  }
}

}  // namespace inflight
