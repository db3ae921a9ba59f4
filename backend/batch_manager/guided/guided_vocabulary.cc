#include "batch_manager/guided/guided_vocabulary.h"

#include <algorithm>
#include <string>
#include <utility>

#include "batch_manager/words/token_texts.h"
#include "common/error.h"
#include "common/rounding.h"

namespace inflight {
namespace {

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

template <class Condition>
std::vector<uint32_t> tokens_that(const xgrammar::TokenizerInfo& tokens, Condition&& condition) {
  std::vector<uint32_t> words(divide_up(tokens.GetVocabSize(), 32));
  for (const auto& [id, token] : tokens.GetSortedDecodedVocab()) {
    if (condition(token)) words[id / 32] |= 1u << id % 32;
  }
  return words;
}

}  // namespace

const std::vector<uint32_t>* GuidedVocabulary::refused_after(const std::string& text) const {
  const auto found = text.empty() ? not_after.end() : not_after.find(text.back());
  return found == not_after.end() ? nullptr : &found->second;
}

GuidedVocabulary read_guided_vocabulary(const std::filesystem::path& tokenizer_dir, int32_t vocab_size,
                                        const std::vector<int32_t>& end_ids) {
  const TokenTexts texts(tokenizer_dir);
  if (texts.model_size() > vocab_size) {
    throw_error(ErrorCode::kInvalidArgument, (tokenizer_dir / "tokenizer.json").string(), " has token ",
                texts.model_size() - 1, "; the engine's vocabulary has ", vocab_size,
                " tokens: use the tokenizer of its model");
  }
  std::vector<std::string> added(vocab_size);
  std::map<int32_t, std::string> first_texts;
  for (int32_t id = 0; id < vocab_size; ++id) {
    const auto text = texts.text(id, /*skips_special_tokens=*/true);
    if (!text || std::ranges::find(end_ids, id) != end_ids.end()) continue;
    const std::string first(*texts.first_text(id, /*skips_special_tokens=*/true));
    if (!is_of_no_text(std::string(*text))) added[id] = *text;
    if (first != *text && !is_of_no_text(first)) first_texts[id] = first;
  }
  GuidedVocabulary vocabulary{
      xgrammar::TokenizerInfo(added, xgrammar::VocabType::RAW, vocab_size, std::vector<int32_t>{}),
      std::move(first_texts),
      {}};
  for (const FirstByte& first : kFirstBytes) {
    vocabulary.not_after[first.byte] =
        tokens_that(vocabulary.tokens, [&](const auto& token) { return is_wrong_second(first, token[0]); });
  }
  return vocabulary;
}

}  // namespace inflight
