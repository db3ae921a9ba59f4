#include "batch_manager/prompt_lookup.h"

#include <algorithm>
#include <random>
#include <vector>

#include "check.h"
#include "ends_with.h"

using namespace inflight;

namespace {

using Tokens = std::vector<int32_t>;

Tokens draft_of(const PromptLookup& lookup, int32_t max_drafts) {
  const auto draft = lookup.draft(max_drafts);
  return {draft.begin(), draft.end()};
}

Tokens draft_after(const Tokens& text, int32_t max_ngram, int32_t max_drafts) {
  PromptLookup lookup(max_ngram);
  lookup.append(text);
  return draft_of(lookup, max_drafts);
}

// The definition: a search through the whole text.
Tokens draft_by_search(const Tokens& text, int32_t max_ngram, int32_t max_drafts) {
  for (size_t n = std::min<size_t>(max_ngram, text.size()); n > 0; --n) {
    const auto ngram = std::span(text).last(n);
    for (size_t end = text.size() - 1; end >= n; --end) {
      if (!test::ends_with(std::span(text).first(end), ngram)) continue;
      const size_t draft_end = std::min(text.size(), end + max_drafts);
      return {text.begin() + end, text.begin() + draft_end};
    }
  }
  return {};
}

}  // namespace

TEST(the_draft_is_what_followed_the_last_tokens_before) {
  CHECK(draft_after({1, 2, 3, 4, 5, 6, 9, 1, 2, 3}, 3, 2) == (Tokens{4, 5}));
}

TEST(the_longest_ngram_decides) {
  const Tokens text = {1, 2, 3, 40, 7, 2, 3, 50, 8, 3, 60, 9, 1, 2, 3};
  CHECK(draft_after(text, 3, 1) == Tokens{40});
  CHECK(draft_after(text, 2, 1) == Tokens{50});
  CHECK(draft_after(text, 1, 1) == Tokens{60});
}

TEST(of_equal_ngrams_the_latest_decides) { CHECK(draft_after({1, 2, 30, 1, 2, 40, 1, 2}, 2, 1) == Tokens{40}); }

TEST(a_draft_ends_with_the_text) {
  CHECK(draft_after({1, 2, 3, 1, 2}, 2, 10) == (Tokens{3, 1, 2}));
  CHECK(draft_after({5, 5}, 3, 10) == Tokens{5});
}

TEST(what_never_occurred_has_no_draft) {
  CHECK(draft_after({}, 3, 4).empty());
  CHECK(draft_after({1}, 3, 4).empty());
  CHECK(draft_after({1, 2, 3, 4}, 3, 4).empty());
}

TEST(no_drafts_are_made_when_none_may_be) { CHECK(draft_after({1, 2, 1, 2}, 2, 0).empty()); }

TEST(drafts_equal_those_of_a_search_through_the_text) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 300; ++trial) {
    const int32_t max_ngram = 1 + static_cast<int32_t>(random() % 5);
    const int32_t max_drafts = static_cast<int32_t>(random() % 9);
    const int32_t vocab_size = 1 + static_cast<int32_t>(random() % 30);
    PromptLookup lookup(max_ngram);
    Tokens text;
    while (text.size() < 300) {
      Tokens chunk(random() % (text.empty() ? 100 : 6));
      for (int32_t& token : chunk) token = static_cast<int32_t>(random() % vocab_size);
      text.insert(text.end(), chunk.begin(), chunk.end());
      lookup.append(chunk);
      CHECK(draft_of(lookup, max_drafts) == draft_by_search(text, max_ngram, max_drafts));
    }
  }
}

TEST(a_long_text_takes_time_in_proportion_to_its_length) {
  PromptLookup lookup(4);
  std::mt19937 random(7);
  Tokens text(2'000'000);
  for (int32_t& token : text) token = static_cast<int32_t>(random() % 50'000);
  lookup.append(text);  // a rescan for each token would take hours
  for (int32_t token = 0; token < 1000; ++token) {
    lookup.append(std::span(&token, 1));
    CHECK(lookup.draft(8).size() <= 8);
  }
  lookup.append(std::span(text).first(100));
  CHECK(draft_of(lookup, 4) == Tokens(text.begin() + 100, text.begin() + 104));
}

TEST_MAIN()
