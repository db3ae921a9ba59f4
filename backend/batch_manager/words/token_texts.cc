#include "batch_manager/words/token_texts.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "batch_manager/words/token_decoder.h"
#include "common/error.h"

namespace inflight {
namespace {

using nlohmann::json;

json read_tokenizer(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw_error(ErrorCode::kNotFound, file.string(), " cannot be read");
  // The merges are most of the file, and of no use here.
  return json::parse(in, [](int depth, json::parse_event_t event, const json& parsed) {
    return !(depth == 2 && event == json::parse_event_t::key && parsed == "merges");
  });
}

struct Token {
  std::string content;
  bool is_known = false;
  bool is_added = false;
  bool is_special = false;
};

void set(std::vector<Token>& tokens, int64_t id, Token token) {
  constexpr int64_t kMost = 1 << 24;
  if (id < 0 || id >= kMost) throw std::invalid_argument("it has the token " + std::to_string(id));
  if (id >= static_cast<int64_t>(tokens.size())) tokens.resize(id + 1);
  tokens[id] = std::move(token);
}

std::vector<Token> read_tokens(const json& tokenizer) {
  std::vector<Token> tokens;
  const json& vocabulary = tokenizer.at("model").at("vocab");
  if (vocabulary.is_array()) {  // of [token, score]
    for (const json& entry : vocabulary) {
      set(tokens, static_cast<int64_t>(tokens.size()), {.content = entry.at(0), .is_known = true});
    }
  } else {
    for (const auto& [content, id] : vocabulary.items()) set(tokens, id, {.content = content, .is_known = true});
  }
  for (const json& added : tokenizer.value("added_tokens", json::array())) {
    set(tokens, added.at("id"),
        {.content = added.at("content"),
         .is_known = true,
         .is_added = true,
         .is_special = added.value("special", false)});
  }
  return tokens;
}

}  // namespace

TokenTexts::TokenTexts(const std::filesystem::path& tokenizer_dir) {
  const auto file = tokenizer_dir / "tokenizer.json";
  try {
    const json tokenizer = read_tokenizer(file);
    const TokenDecoder decoder(tokenizer.value("decoder", json()));
    for (const Token& token : read_tokens(tokenizer)) {
      if (token.is_known && !token.is_added) model_size_ = static_cast<int32_t>(kinds_.size()) + 1;
      kinds_.push_back(!token.is_known ? Kind::kNone : token.is_special ? Kind::kSpecial : Kind::kText);
      const std::string added = token.is_added ? decoder.decode_added(token.content) : "";
      texts_.add(token.is_added ? added : decoder.decode(token.content));
      if (decoder.has_rule_for_first()) {
        first_texts_.add(token.is_added ? added : decoder.decode_first(token.content));
      }
    }
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw_error(ErrorCode::kInvalidArgument, file.string(), ": ", e.what());
  }
}

size_t TokenTexts::longest() const {
  size_t longest = 0, begin = 0;
  for (const size_t end : texts_.ends) longest = std::max(longest, end - std::exchange(begin, end));
  return longest;
}

void TokenTexts::Table::add(std::string_view text) {
  bytes.append(text);
  ends.push_back(bytes.size());
}

std::optional<std::string_view> TokenTexts::find(const Table& table, int32_t token, bool skips_special_tokens) const {
  if (token < 0 || static_cast<size_t>(token) >= kinds_.size()) return std::nullopt;
  const Kind kind = kinds_[token];
  if (kind == Kind::kNone || (kind == Kind::kSpecial && skips_special_tokens)) return std::nullopt;
  const size_t begin = token == 0 ? 0 : table.ends[token - 1];
  return std::string_view(table.bytes).substr(begin, table.ends[token] - begin);
}

}  // namespace inflight
