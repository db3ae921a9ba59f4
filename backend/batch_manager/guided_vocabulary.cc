#include "batch_manager/guided_vocabulary.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "common/error.h"

namespace inflight {
namespace {

using nlohmann::json;

json read_tokenizer(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    throw_error(ErrorCode::kNotFound, file.string(), " cannot be read; guided decoding needs a fast tokenizer's file");
  }
  return json::parse(in);
}

// The model's part of tokenizer.json that tells how tokens spell bytes.
xgrammar::VocabType spelling(const json& tokenizer) {
  json parts = json::object();
  for (const char* name : {"decoder", "normalizer", "pre_tokenizer"}) {
    if (tokenizer.contains(name)) parts[name] = tokenizer[name];
  }
  const json metadata = json::parse(xgrammar::TokenizerInfo::DetectMetadataFromHF(parts.dump()));
  const auto type = static_cast<xgrammar::VocabType>(metadata.at("vocab_type").get<int>());
  const bool writes_spaces_as_metaspaces = parts.value("decoder", json()).dump().find("▁") != std::string::npos;
  return type == xgrammar::VocabType::RAW && writes_spaces_as_metaspaces ? xgrammar::VocabType::BYTE_FALLBACK : type;
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
  const auto type = spelling(tokenizer);

  Vocabulary spelled(file, vocab_size);
  read_model(tokenizer.at("model").at("vocab"), spelled);
  Vocabulary tokens(file, vocab_size);
  const xgrammar::TokenizerInfo model(spelled.tokens(), type, std::nullopt, std::vector<int32_t>{});
  const auto& decoded = model.GetDecodedVocab();
  for (size_t id = 0; id < decoded.size(); ++id) tokens.set(static_cast<int64_t>(id), decoded[id]);

  // Added tokens are plain text, even where those of the model spell bytes.
  for (const json& added : tokenizer.value("added_tokens", json::array())) {
    const std::string& content = added.at("content").get_ref<const std::string&>();
    tokens.set(added.at("id").get<int64_t>(), added.value("special", false) ? "" : content);
  }
  for (const int32_t id : end_ids) tokens.set(id, "");
  return xgrammar::TokenizerInfo(tokens.tokens(), xgrammar::VocabType::RAW, vocab_size, std::vector<int32_t>{});
}

}  // namespace

xgrammar::TokenizerInfo read_guided_vocabulary(const std::filesystem::path& tokenizer_dir, int32_t vocab_size,
                                               const std::vector<int32_t>& end_ids) {
  const auto file = tokenizer_dir / "tokenizer.json";
  try {
    return read(file, vocab_size, end_ids);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw_error(ErrorCode::kInvalidArgument, file.string(),
                " is no tokenizer that guided decoding can use: ", e.what());
  }
}

}  // namespace inflight
