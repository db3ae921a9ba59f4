#include "batch_manager/words/stop_words.h"

#include <utility>
#include <vector>

namespace inflight {
namespace {

WordList to_bytes(const std::vector<std::string>& texts) {
  WordList words;
  for (const std::string& text : texts) {
    std::vector<int32_t> bytes;
    for (const char byte : text) bytes.push_back(static_cast<unsigned char>(byte));
    words.add(bytes);
  }
  return words;
}

}  // namespace

StopWords::StopWords(const WordList& words, const StopTexts& texts, std::shared_ptr<const TokenTexts> token_texts)
    : words_(words),
      texts_(to_bytes(texts.texts)),
      token_texts_(texts.texts.empty() ? nullptr : std::move(token_texts)),
      include_in_output_(texts.include_in_output),
      skip_special_tokens_(texts.skip_special_tokens),
      follows_prompt_(texts.follows_prompt),
      min_tokens_(texts.min_tokens) {}

std::optional<StopMatch> StopWords::advance(StopProgress& progress, int32_t token) const {
  progress.words = words_.next(progress.words, token);
  std::optional<StopMatch> match;
  if (has_texts()) match = find(progress, next_text(progress, token));
  if (!match && words_.longest_word(progress.words) != WordAutomaton::kNone) match.emplace();
  return match;
}

std::optional<StopMatch> StopWords::finish(StopProgress& progress) const {
  if (!has_texts()) return std::nullopt;
  std::string text;
  progress.decoder.finish(text);
  return find(progress, std::move(text));
}

// As Detokenizer of inflight/text/detokenizer.py: a token without text ends a character; what some tokenizers put at
// the start of a text is dropped only from one of the first kPrecedingTokens tokens.
std::string StopWords::next_text(StopProgress& progress, int32_t token) const {
  const bool is_first =
      !progress.has_text && !follows_prompt_ && progress.num_tokens < static_cast<int32_t>(kPrecedingTokens);
  const auto piece = is_first ? token_texts_->first_text(token, skip_special_tokens_)
                              : token_texts_->text(token, skip_special_tokens_);
  ++progress.num_tokens;
  std::string text;
  if (piece) {
    progress.has_text = true;
    progress.decoder.push(*piece, text);
  } else {
    progress.decoder.finish(text);
  }
  return text;
}

std::optional<StopMatch> StopWords::find(StopProgress& progress, std::string text) const {
  const int64_t begin = std::exchange(progress.length, progress.length + static_cast<int64_t>(text.size()));
  if (progress.num_tokens <= min_tokens_) return std::nullopt;
  for (size_t i = 0; i < text.size(); ++i) {
    progress.texts = texts_.next(progress.texts, static_cast<unsigned char>(text[i]));
    const auto found = texts_.longest_word(progress.texts);
    if (found == WordAutomaton::kNone) continue;
    progress.decoder.finish(text);
    const int64_t kept = begin + static_cast<int64_t>(i) + 1 - (include_in_output_ ? 0 : texts_.depth(found));
    const int64_t length = begin + static_cast<int64_t>(text.size());
    return StopMatch{texts_.index(found), static_cast<int32_t>(length - kept)};
  }
  return std::nullopt;
}

}  // namespace inflight
