#include "batch_manager/words/token_decoder.h"

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>

namespace inflight {
namespace {

using nlohmann::json;

constexpr const char* kSupported = "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip, and sequences of these";

// GPT-2's bytes_to_unicode: printable bytes stand for themselves, the others, in order, for U+0100 and on.
bool stands_for_itself(int byte) {
  return (0x21 <= byte && byte <= 0x7e) || (0xa1 <= byte && byte <= 0xac) || (0xae <= byte && byte <= 0xff);
}

constexpr int kAlphabetSize = 0x100 + 68;

const std::array<int, kAlphabetSize>& byte_level_alphabet() {
  static const auto alphabet = [] {
    std::array<int, kAlphabetSize> bytes;
    bytes.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 0x100; ++byte) bytes[stands_for_itself(byte) ? byte : next++] = byte;
    return bytes;
  }();
  return alphabet;
}

// All of the alphabet's characters have one or two bytes of UTF-8. A token that has others is plain text.
std::optional<std::string> from_byte_level(std::string_view token) {
  std::string bytes;
  for (size_t i = 0; i < token.size(); ++i) {
    int character = static_cast<unsigned char>(token[i]);
    if (character >= 0x80) {
      if ((character & 0xe0) != 0xc0 || i + 1 == token.size()) return std::nullopt;
      character = (character & 0x1f) << 6 | (static_cast<unsigned char>(token[++i]) & 0x3f);
    }
    if (character >= kAlphabetSize || byte_level_alphabet()[character] < 0) return std::nullopt;
    bytes += static_cast<char>(byte_level_alphabet()[character]);
  }
  return bytes;
}

int hex_digit(char digit) {
  if ('0' <= digit && digit <= '9') return digit - '0';
  if ('a' <= digit && digit <= 'f') return digit - 'a' + 10;
  if ('A' <= digit && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

// <0x0A>
std::optional<char> from_byte_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high << 4 | low);
}

std::string replace_all(std::string_view text, const std::string& pattern, const std::string& content) {
  if (pattern.empty()) return std::string(text);
  std::string result;
  size_t begin = 0;
  for (size_t at; (at = text.find(pattern, begin)) != std::string_view::npos; begin = at + pattern.size()) {
    result.append(text, begin, at - begin).append(content);
  }
  return result.append(text, begin);
}

}  // namespace

TokenDecoder::TokenDecoder(const json& decoder) {
  if (decoder.is_object() && decoder.value("type", "") == "Sequence") {
    for (const json& member : decoder.at("decoders")) {
      const TokenDecoder inner(member);
      replacements_.insert(replacements_.end(), inner.replacements_.begin(), inner.replacements_.end());
      if (!inner.stripped_.empty()) stripped_ = inner.stripped_;
      is_byte_level_ |= inner.is_byte_level_;
      has_byte_tokens_ |= inner.has_byte_tokens_;
      drops_first_spaces_ |= inner.drops_first_spaces_;
    }
  } else {
    add_decoder(decoder);
  }
}

void TokenDecoder::add_decoder(const json& decoder) {
  const std::string type = decoder.is_object() ? decoder.value("type", "") : "";
  if (type == "ByteLevel") {
    is_byte_level_ = true;
  } else if (type == "ByteFallback") {
    has_byte_tokens_ = true;
  } else if (type == "Replace" && decoder.at("pattern").contains("String")) {
    replacements_.emplace_back(decoder["pattern"]["String"], decoder.at("content"));
  } else if (type == "Strip" && decoder.at("stop") == 0 && decoder.at("start") <= 1) {
    if (decoder["start"] == 1) stripped_ = decoder.at("content");
  } else if (type == "Metaspace") {
    replacements_.emplace_back(decoder.at("replacement"), " ");
    drops_first_spaces_ = decoder.value("prepend_scheme", "always") != "never";
  } else if (type != "Fuse") {
    throw std::invalid_argument("cannot stream text with the decoder " + decoder.dump() + "; supported are " +
                                kSupported);
  }
}

std::string TokenDecoder::decode(const std::string& token) const {
  if (is_byte_level_) {
    const auto bytes = from_byte_level(token);
    return bytes ? *bytes : token;
  }
  if (has_byte_tokens_) {
    if (const auto byte = from_byte_token(token)) return std::string(1, *byte);
  }
  return decode_added(token);
}

std::string TokenDecoder::decode_first(const std::string& token) const {
  if (drops_first_spaces_) return decode_added(replace_all(token, replacements_.back().first, ""));
  const std::string text = decode(token);
  return text.starts_with(stripped_) ? text.substr(stripped_.size()) : text;
}

std::string TokenDecoder::decode_added(const std::string& token) const {
  std::string text = token;
  for (const auto& [pattern, content] : replacements_) text = replace_all(text, pattern, content);
  return text;
}

}  // namespace inflight
