#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace inflight {

// The bytes that each token adds to a text, by the `decoder` of a tokenizer.json.
class TokenTexts {
 public:
  // Reads tokenizer_dir/tokenizer.json. Throws Error naming the file and what is wrong with it.
  explicit TokenTexts(const std::filesystem::path& tokenizer_dir);

  // What a token adds, none: it is no text, as ids outside the vocabulary are, and special tokens if they are skipped.
  // The views live as long as this object.
  std::optional<std::string_view> text(int32_t token, bool skips_special_tokens) const {
    return find(texts_, token, skips_special_tokens);
  }
  // The same at the start of a text, which drops the space that some tokenizers put there.
  std::optional<std::string_view> first_text(int32_t token, bool skips_special_tokens) const {
    return find(first_texts_.empty() ? texts_ : first_texts_, token, skips_special_tokens);
  }
  size_t longest() const;  // of all texts, in bytes
  // One more than the largest id of the model's own tokens. Added tokens may be beyond, and have no embedding there.
  int32_t model_size() const { return model_size_; }

 private:
  enum class Kind : uint8_t { kNone, kText, kSpecial };

  // Of each token.
  struct Table {
    std::string bytes;
    std::vector<size_t> ends;
    bool empty() const { return ends.empty(); }
    void add(std::string_view text);
  };

  std::optional<std::string_view> find(const Table& table, int32_t token, bool skips_special_tokens) const;

  std::vector<Kind> kinds_;
  int32_t model_size_ = 0;
  Table texts_;
  Table first_texts_;  // empty: those of texts_
};

}  // namespace inflight
