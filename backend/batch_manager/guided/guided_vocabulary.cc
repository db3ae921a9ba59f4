#include "batch_manager/guided/guided_vocabulary.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "common/error.h"
#include "common/rounding.h"

namespace inflight {
namespace {

using nlohmann::json;

// First bytes of characters after which not every continuation byte makes a character: it would be written too long, a
// surrogate, or above U+10FFFF (RFC 3629, section 4).
struct FirstByte {
  char byte;
  unsigned char least, most;  // of the second byte
};
constexpr FirstByte kFirstBytes[] = {
    {'\xe0', 0xa0, 0xbf}, {'\xed', 0x80, 0x9f}, {'\xf0', 0x90, 0xbf}, {'\xf4', 0x80, 0x8f}};

bool is_wrong_second(const FirstByte& first, char second) {
  const auto byte = static_cast<unsigned char>(second);
  return 0x80 <= byte && byte <= 0xbf && (byte < first.least || byte > first.most);
}

bool is_of_no_character(char byte) { return byte == '\xc0' || byte == '\xc1' || ('\xf5' <= byte && byte <= '\xff'); }

bool is_of_no_text(const std::string& token) {
  if (std::ranges::any_of(token, is_of_no_character)) return true;
  for (const FirstByte& first : kFirstBytes) {
    for (size_t at = 0; (at = token.find(first.byte, at)) != std::string::npos; ++at) {
      if (at + 1 < token.size() && is_wrong_second(first, token[at + 1])) return true;
    }
  }
  return false;
}

bool is_control(char byte) { return static_cast<unsigned char>(byte) < 0x20 && byte != '\n' && byte != '\r'; }

json read_tokenizer(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    throw_error(ErrorCode::kNotFound, file.string(), " cannot be read; guided decoding needs a fast tokenizer's file");
  }
  return json::parse(in);
}

// How the model's tokens spell bytes.
struct Spelling {
  xgrammar::VocabType type;
  bool has_metaspaces;  // ▁ for a space; those of byte-fallback vocabularies are xgrammar's to know
};

Spelling read_spelling(const json& tokenizer) {
  json parts = json::object();
  for (const char* name : {"decoder", "normalizer", "pre_tokenizer"}) {
    if (tokenizer.contains(name)) parts[name] = tokenizer[name];
  }
  const json metadata = json::parse(xgrammar::TokenizerInfo::DetectMetadataFromHF(parts.dump()));
  const auto type = static_cast<xgrammar::VocabType>(metadata.at("vocab_type").get<int>());
  const std::string decoder = parts.value("decoder", json()).dump();
  return {type, type == xgrammar::VocabType::RAW && decoder.find("▁") != std::string::npos};
}

std::string without_metaspaces(const std::string& token) {
  constexpr std::string_view kMetaspace = "▁";
  std::string text;
  size_t begin = 0;
  for (size_t at; (at = token.find(kMetaspace, begin)) != std::string::npos; begin = at + kMetaspace.size()) {
    text.append(token, begin, at - begin) += ' ';
  }
  return text.append(token, begin);
}

class Vocabulary {
 public:
  Vocabulary(const std::filesystem::path& file, int32_t vocab_size) : file_(file), vocab_size_(vocab_size) {}

  void set(int64_t id, const std::string& token) {
    if (id < 0 || id >= vocab_size_) {
      throw_error(ErrorCode::kInvalidArgument, file_.string(), " has token ", id, "; the engine's vocabulary has ",
                  vocab_size_, " tokens: use the tokenizer of its model");
    }
    if (id >= static_cast<int64_t>(tokens_.size())) tokens_.resize(id + 1);
    tokens_[id] = token;
  }

  const std::vector<std::string>& tokens() const { return tokens_; }

 private:
  const std::filesystem::path& file_;
  int32_t vocab_size_;
  std::vector<std::string> tokens_;  // [largest id + 1]; empty where there is none
};

// Of a BPE, WordPiece or WordLevel model an object of token → id, of a Unigram model a list of [token, score].
void read_model(const json& vocabulary, Vocabulary& tokens) {
  if (vocabulary.is_array()) {
    for (size_t id = 0; id < vocabulary.size(); ++id) {
      tokens.set(static_cast<int64_t>(id), vocabulary[id].at(0).get_ref<const std::string&>());
    }
    return;
  }
  for (const auto& [token, id] : vocabulary.items()) tokens.set(id.get<int64_t>(), token);
}

xgrammar::TokenizerInfo read(const std::filesystem::path& file, int32_t vocab_size,
                             const std::vector<int32_t>& end_ids) {
  const json tokenizer = read_tokenizer(file);
  const Spelling spelling = read_spelling(tokenizer);

  Vocabulary spelled(file, vocab_size);
  read_model(tokenizer.at("model").at("vocab"), spelled);
  Vocabulary tokens(file, vocab_size);
  const xgrammar::TokenizerInfo model(spelled.tokens(), spelling.type, std::nullopt, std::vector<int32_t>{});
  const auto& decoded = model.GetDecodedVocab();
  for (size_t id = 0; id < decoded.size(); ++id) {
    if (is_of_no_text(decoded[id])) continue;
    tokens.set(static_cast<int64_t>(id), spelling.has_metaspaces ? without_metaspaces(decoded[id]) : decoded[id]);
  }

  // Added tokens are plain text, even where those of the model spell bytes.
  for (const json& added : tokenizer.value("added_tokens", json::array())) {
    const std::string& content = added.at("content").get_ref<const std::string&>();
    const int64_t id = added.at("id").get<int64_t>();
    if (id >= vocab_size) continue;  // added without a row of the embedding: never sampled
    tokens.set(id, added.value("special", false) ? "" : content);
  }
  for (const int32_t id : end_ids) tokens.set(id, "");
  return xgrammar::TokenizerInfo(tokens.tokens(), xgrammar::VocabType::RAW, vocab_size, std::vector<int32_t>{});
}

template <class Condition>
std::vector<uint32_t> tokens_that(const xgrammar::TokenizerInfo& tokens, Condition&& condition) {
  std::vector<uint32_t> words(divide_up(tokens.GetVocabSize(), 32));
  for (const auto& [id, token] : tokens.GetSortedDecodedVocab()) {
    if (condition(token)) words[id / 32] |= 1u << id % 32;
  }
  return words;
}

}  // namespace

const std::vector<uint32_t>* GuidedVocabulary::refused_after(int32_t token) const {
  const auto found = not_after.find(tokens.GetDecodedVocab()[token].back());
  return found == not_after.end() ? nullptr : &found->second;
}

GuidedVocabulary read_guided_vocabulary(const std::filesystem::path& tokenizer_dir, int32_t vocab_size,
                                        const std::vector<int32_t>& end_ids) {
  const auto file = tokenizer_dir / "tokenizer.json";
  try {
    GuidedVocabulary vocabulary{read(file, vocab_size, end_ids), {}, {}};
    vocabulary.controls =
        tokens_that(vocabulary.tokens, [](const auto& token) { return std::ranges::any_of(token, is_control); });
    for (const FirstByte& first : kFirstBytes) {
      vocabulary.not_after[first.byte] =
          tokens_that(vocabulary.tokens, [&](const auto& token) { return is_wrong_second(first, token[0]); });
    }
    return vocabulary;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw_error(ErrorCode::kInvalidArgument, file.string(),
                " is no tokenizer that guided decoding can use: ", e.what());
  }
}

}  // namespace inflight
