#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace inflight {

// Draft tokens from a sequence's own text (prompt lookup decoding, as transformers' prompt_lookup_num_tokens and
// vLLM's n-gram speculator): what followed the last earlier occurrence of its latest tokens.
//
// Keeps a copy of the text and, for each n-gram length, a hash table of where each n-gram ended last. A token costs
// O(max_ngram) time and memory on average, however long the text is; a draft costs nothing.
class PromptLookup {
 public:
  explicit PromptLookup(int32_t max_ngram);  // > 0

  // The next tokens of the text: the prompt first, then what was generated.
  void append(std::span<const int32_t> tokens);

  // The tokens that followed the last earlier occurrence of the longest of the text's last max_ngram, …, 2, 1 tokens
  // that occurred before; at most max_drafts, and none beyond the text's end. Empty if there is no such occurrence.
  // Valid until the next append().
  std::span<const int32_t> draft(int32_t max_drafts) const;

 private:
  // Where each n-gram of one length ended last: a hash table with open addressing.
  class LastEnds {
   public:
    explicit LastEnds(size_t n) : n_(n) {}
    // The end of the last earlier occurrence of the text's last n tokens, 0 if none. From now on it is the text's end.
    int32_t exchange(std::span<const int32_t> text);

   private:
    // Index in ends_ of the text's last n tokens, or of the free place for them.
    size_t find(std::span<const int32_t> text) const;
    void grow(std::span<const int32_t> text);

    size_t n_;
    size_t num_used_ = 0;
    std::vector<int32_t> ends_;  // a power of two of them, at most half of them used; 0: free
  };

  std::vector<int32_t> text_;
  std::vector<LastEnds> last_ends_;  // of n = 1, 2, …, max_ngram
  int32_t follows_ = 0;  // index in the text of what the draft begins with; 0: no draft
};

}  // namespace inflight
