#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

namespace inflight {

// Words, each a sequence of symbols, which are token ids or bytes: all in one piece of memory.
class WordList {
 public:
  WordList() = default;
  WordList(std::initializer_list<std::vector<int32_t>> words) {
    for (const auto& word : words) add(word);
  }
  WordList(const std::vector<std::vector<int32_t>>& words) {
    for (const auto& word : words) add(word);
  }

  void add(std::span<const int32_t> word) {
    symbols_.insert(symbols_.end(), word.begin(), word.end());
    ends_.push_back(symbols_.size());
  }

  size_t size() const { return ends_.size(); }
  bool empty() const { return ends_.empty(); }
  size_t length() const { return symbols_.size(); }  // of all words together
  std::span<const int32_t> operator[](size_t index) const {
    const size_t begin = index == 0 ? 0 : ends_[index - 1];
    return std::span(symbols_).subspan(begin, ends_[index] - begin);
  }

 private:
  std::vector<int32_t> symbols_;
  std::vector<size_t> ends_;  // of each word in symbols_
};

}  // namespace inflight
