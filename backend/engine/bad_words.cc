#include "engine/bad_words.h"

#include <algorithm>
#include <utility>

namespace inflight {
namespace {

WordList without_last_tokens(const WordList& words) {
  WordList beginnings;
  for (size_t i = 0; i < words.size(); ++i) {
    if (!words[i].empty()) beginnings.add(words[i].first(words[i].size() - 1));
  }
  return beginnings;
}

}  // namespace

const WordList& BadWords::list() const {
  static const WordList kNone;
  return empty() ? kNone : words_->list;
}

BadWords::BadWords(const WordList& list) {
  const WordList beginnings = without_last_tokens(list);
  if (beginnings.empty()) return;
  auto words = std::make_shared<Words>();
  words->list = list;
  words->beginnings = WordAutomaton(beginnings);

  std::vector<std::pair<WordAutomaton::State, int32_t>> completions;  // the state before a word's last token, and it
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].empty()) continue;
    WordAutomaton::State state = WordAutomaton::kStart;
    for (const int32_t token : list[i].first(list[i].size() - 1)) state = words->beginnings.next(state, token);
    completions.emplace_back(state, list[i].back());
    words->look_back = std::max(words->look_back, words->beginnings.depth(state));
  }
  std::ranges::sort(completions);
  completions.erase(std::unique(completions.begin(), completions.end()), completions.end());
  words->first_token.assign(words->beginnings.num_states() + 1, 0);
  for (const auto& [state, token] : completions) {
    ++words->first_token[state + 1];
    words->last_tokens.push_back(token);
  }
  for (size_t i = 1; i < words->first_token.size(); ++i) words->first_token[i] += words->first_token[i - 1];
  words_ = std::move(words);
}

}  // namespace inflight
