#include "engine/word_automaton.h"

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "check.h"
#include "ends_with.h"
#include "engine/bad_words.h"

using namespace inflight;
using test::ends_with;

namespace {

using Symbols = std::vector<int32_t>;

Symbols random_symbols(std::mt19937& random, size_t length, int32_t alphabet) {
  Symbols symbols(length);
  for (int32_t& symbol : symbols) symbol = static_cast<int32_t>(random() % alphabet) - 1;
  return symbols;
}

WordList random_words(std::mt19937& random, size_t count, size_t longest, int32_t alphabet) {
  WordList words;
  for (size_t i = 0; i < count; ++i) words.add(random_symbols(random, random() % (longest + 1), alphabet));
  return words;
}

size_t longest_beginning(const WordList& words, std::span<const int32_t> symbols) {
  size_t longest = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    for (size_t size = 1; size <= words[i].size(); ++size) {
      if (ends_with(symbols, words[i].first(size))) longest = std::max(longest, size);
    }
  }
  return longest;
}

}  // namespace

// Against a look at every word after every symbol.
TEST(states_name_the_words_that_the_symbols_end_with) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const int32_t alphabet = 1 + static_cast<int32_t>(random() % 4);
    const WordList words = random_words(random, random() % 8, 1 + random() % 6, alphabet);
    const WordAutomaton automaton(words);
    const Symbols symbols = random_symbols(random, 60, alphabet);
    auto state = WordAutomaton::kStart;
    for (size_t end = 1; end <= symbols.size(); ++end) {
      const auto text = std::span(symbols).first(end);
      state = automaton.next(state, text.back());
      CHECK_EQ(static_cast<size_t>(automaton.depth(state)), longest_beginning(words, text));
      std::set<size_t, std::greater<>> expected;
      for (size_t i = 0; i < words.size(); ++i) {
        if (ends_with(text, words[i])) expected.insert(words[i].size());
      }
      for (auto word = automaton.longest_word(state); word != WordAutomaton::kNone; word = automaton.next_word(word)) {
        CHECK(!expected.empty());
        CHECK_EQ(static_cast<size_t>(automaton.depth(word)), *expected.begin());
        const auto found = words[automaton.index(word)];
        CHECK_EQ(found.size(), *expected.begin());
        CHECK(ends_with(text, found));
        expected.erase(expected.begin());
      }
      CHECK(expected.empty());
    }
  }
}

TEST(bad_words_ban_what_would_complete_one) {
  std::mt19937 random(2);
  for (int round = 0; round < 300; ++round) {
    const int32_t alphabet = 2 + static_cast<int32_t>(random() % 3);
    const WordList words = random_words(random, random() % 8, 5, alphabet);
    const BadWords bad_words(words);
    const Symbols symbols = random_symbols(random, 40, alphabet);
    auto state = WordAutomaton::kStart;
    for (size_t end = 0; end <= symbols.size(); ++end) {
      if (end > 0) state = bad_words.next(state, symbols[end - 1]);
      std::set<int32_t> banned, expected;
      bad_words.for_each_banned(state, [&](int32_t token) { banned.insert(token); });
      for (size_t i = 0; i < words.size(); ++i) {
        if (words[i].empty()) continue;
        const auto beginning = words[i].first(words[i].size() - 1);
        if (ends_with(std::span(symbols).first(end), beginning)) expected.insert(words[i].back());
      }
      CHECK(banned == expected);
    }
  }
}

// A list that falls back often takes no longer than its symbols.
TEST(a_list_is_as_large_as_its_words) {
  WordList words;
  for (int32_t length = 1; length <= 300; ++length) {
    Symbols word(length, 7);
    word.push_back(8);
    words.add(word);
  }
  CHECK_EQ(WordAutomaton(words).num_states(), 1u + 300 + 300);
  CHECK_EQ(BadWords(words).look_back(), 300);
}

TEST_MAIN()
