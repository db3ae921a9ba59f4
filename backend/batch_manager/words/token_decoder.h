#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace inflight {

// A tokenizer.json's `decoder`, as a map from a token to the bytes that it adds to a text.
//
// The decoders of the `tokenizers` library turn a whole token sequence into a string, which loses what a stream needs:
// where a character that is split over several tokens stops. The decoders of language models are such maps, and one
// rule for the first token.
class TokenDecoder {
 public:
  // Throws std::invalid_argument naming a kind of decoder whose text is not its tokens' bytes one after another.
  explicit TokenDecoder(const nlohmann::json& decoder);

  std::string decode(const std::string& token) const;
  // The same at the start of a text.
  std::string decode_first(const std::string& token) const;
  // Of one of added_tokens: its content is plain text, even in a byte-level vocabulary.
  std::string decode_added(const std::string& token) const;

  bool has_rule_for_first() const { return drops_first_spaces_ || !stripped_.empty(); }

 private:
  void add_decoder(const nlohmann::json& decoder);

  std::vector<std::pair<std::string, std::string>> replacements_;
  std::string stripped_;  // from the text's start
  bool is_byte_level_ = false;
  bool has_byte_tokens_ = false;  // <0x0A>
  bool drops_first_spaces_ = false;
};

}  // namespace inflight
