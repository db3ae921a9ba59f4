#include "batch_manager/request_check.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "batch_manager/beam_search.h"
#include "batch_manager/logits_budget.h"
#include "batch_manager/words/text_decoder.h"
#include "common/rounding.h"

namespace inflight {
namespace {

constexpr int32_t kMaxReturnSequences = 1024;
constexpr std::chrono::milliseconds kMaxRetention = std::chrono::hours(1'000'000);  // a clock's range is not far beyond

template <class... Args>
[[noreturn]] void invalid(const Args&... args) {
  throw_error(ErrorCode::kInvalidArgument, args...);
}

void check_tokens(const char* name, std::span<const int32_t> tokens, int32_t vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      invalid(name, " holds ", tokens[i], " at position ", i, "; token ids of this model are 0 to ", vocab_size - 1);
    }
  }
}

// Words as tokens: those of a text come in two spellings, with and without a space before, which is a token more.
void check_words(const char* name, const WordList& words, int32_t vocab_size, const WordLimits& limits) {
  const int64_t max_words = 2 * int64_t{limits.max_words};
  const int64_t max_length = 2 * int64_t{limits.max_length} + limits.max_words;
  if (words.size() > static_cast<size_t>(max_words)) {
    invalid(name, " has ", words.size(), " words as tokens; at most ", max_words,
            " are taken, two spellings of each: send fewer, or give the server a larger max_words");
  }
  if (words.length() > static_cast<size_t>(max_length)) {
    invalid("the words of ", name, " have ", words.length(), " tokens together; at most ", max_length,
            " are taken, two spellings of each: send fewer or shorter ones, or give the server a larger "
            "max_words_length");
  }
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i].empty()) invalid(name, " holds a word without tokens; leave it out");
    check_tokens(name, words[i], vocab_size);
  }
}

void check_stop_texts(const StopTexts& stop, const BatchManagerOptions& options) {
  const auto& [max_words, max_length] = options.word_limits;
  if (stop.texts.empty()) return;
  if (stop.texts.size() > static_cast<size_t>(max_words)) {
    invalid("stop_words has ", stop.texts.size(), " words; at most ", max_words,
            " are taken: send fewer, or give the server a larger max_words");
  }
  size_t length = 0;
  for (const std::string& text : stop.texts) {
    if (text.empty()) invalid("stop_words holds an empty text; leave it out");
    length += text.size();
  }
  if (length > static_cast<size_t>(max_length)) {
    invalid("the words of stop_words have ", length, " bytes together; at most ", max_length,
            " are taken: send fewer or shorter ones, or give the server a larger max_words_length");
  }
  for (const std::string& text : stop.texts) {
    if (!is_utf8(text)) invalid("stop_words holds a text that is not valid UTF-8");
  }
  if (stop.min_tokens < 0) invalid("stop_min_tokens is ", stop.min_tokens, "; it must be at least 0");
  if (options.tokenizer_dir.empty()) {
    throw_error(ErrorCode::kUnsupported,
                "stop words as texts need the model's tokenizer, which was not given to this batch manager "
                "(tokenizer_dir); send them as tokens");
  }
}

void check_lengths(const Request& request, const EngineInfo& info, const BatchManagerOptions& options) {
  const int64_t prompt = request.input_ids.size();
  if (prompt == 0) invalid("input_ids is empty; a request needs at least one token");
  if (request.max_new_tokens <= 0) {
    invalid("request_output_len (max_tokens) is ", request.max_new_tokens, "; it must be at least 1");
  }
  if (prompt >= info.max_seq_len) {
    invalid("input_ids has ", prompt, " tokens; this engine takes at most ", info.max_seq_len - 1,
            ": shorten the prompt or rebuild with a larger --max-seq-len");
  }
  const int64_t total = prompt + request.max_new_tokens;
  if (total > info.max_seq_len) {
    invalid("input_ids has ", prompt, " tokens and request_output_len (max_tokens) is ", request.max_new_tokens, ": ",
            total, " together, and this engine takes at most ", info.max_seq_len, ": ask for at most ",
            info.max_seq_len - prompt, " or rebuild with a larger --max-seq-len");
  }
  if (!options.enable_chunked_context && prompt > info.max_num_tokens) {
    invalid("input_ids has ", prompt, " tokens, more than a step's max_num_tokens (", info.max_num_tokens,
            "): turn on enable_chunked_context or rebuild with a larger --max-num-tokens");
  }
}

// What the request holds at once when it runs alone must fit.
void check_blocks(const Request& request, const EngineInfo& info, const KvCache& kv_cache) {
  const int64_t prompt = request.input_ids.size();
  const int64_t sequence = kv_cache.peak_blocks(prompt + request.max_new_tokens - 1, info.max_tokens_in_flight());
  const int64_t shared = info.attention_window > 0 ? 0 : prompt / info.tokens_per_block;
  const int64_t beams = request.beam_search.beam_width;
  const int64_t needed = sequence + (beams - 1) * (sequence - shared);
  if (needed > info.num_blocks) {
    invalid(
        "input_ids has ", prompt, " tokens, request_output_len (max_tokens) is ", request.max_new_tokens,
        beams > 1 ? concat(" and beam_width is ", beams) : "", ": they take ", needed,
        " blocks of the KV cache, and it has ", info.num_blocks, " of ", info.tokens_per_block,
        " tokens: ask for less, or give the KV cache more memory (max_tokens_in_paged_kv_cache, --kv-cache-memory)");
  }
}

void check_logits(const Request& request, const EngineInfo& info) {
  const int64_t needed = logits_bytes(request, info.vocab_size);
  if (needed <= info.logits_bytes) return;
  const auto mebibytes = [](int64_t bytes) { return concat(divide_up(bytes, int64_t{1} << 20), " MiB"); };
  invalid(request.return_context_logits ? "return_context_logits" : "return_generation_logits", " with ",
          request.input_ids.size(), " input_ids, request_output_len (max_tokens) ", request.max_new_tokens,
          " and num_return_sequences ", request.num_return_sequences, " takes ", mebibytes(needed),
          " of logits, and this engine has ", mebibytes(info.logits_bytes),
          " for them: ask for less, or rebuild with a larger --logits-memory");
}

void check_range(const char* name, double value, bool ok, const char* allowed) {
  if (!ok) invalid(name, " is ", value, "; it must be ", allowed);
}

void check_top_log_probs(const SamplingConfig& sampling, const EngineInfo& info) {
  const int32_t count = *sampling.num_top_log_probs, most = std::min(kMaxTopLogProbs, info.vocab_size);
  if (count < 0 || count > most) invalid("num_top_log_probs (logprobs) is ", count, "; it must be in 0 to ", most);
  if (!sampling.return_log_probs) invalid("num_top_log_probs is ", count, "; it needs return_log_probs");
}

void check_sampling(const SamplingConfig& sampling, const EngineInfo& info) {
  // Written so that NaN fails every check.
  const double temperature = sampling.temperature;
  check_range("temperature", temperature, temperature >= 0 && std::isfinite(temperature), "a number >= 0 (0: greedy)");
  check_range("top_p", sampling.top_p, sampling.top_p >= 0 && sampling.top_p <= 1, "in 0 to 1");
  check_range("min_p", sampling.min_p, sampling.min_p >= 0 && sampling.min_p <= 1, "in 0 to 1");
  check_range("repetition_penalty", sampling.repetition_penalty,
              sampling.repetition_penalty > 0 && std::isfinite(sampling.repetition_penalty), "a number > 0");
  check_range("presence_penalty", sampling.presence_penalty, std::isfinite(sampling.presence_penalty), "a number");
  check_range("frequency_penalty", sampling.frequency_penalty, std::isfinite(sampling.frequency_penalty), "a number");
  if (sampling.top_k < 0) invalid("top_k is ", sampling.top_k, "; it must be at least 0 (0: all tokens)");
  if (sampling.min_length < 0) invalid("min_length is ", sampling.min_length, "; it must be at least 0");
  for (const int32_t id : sampling.end_ids) {
    if (id < -1 || id >= info.vocab_size) {
      invalid("end_id is ", id, "; it must be -1 (none) or a token id, 0 to ", info.vocab_size - 1);
    }
  }
  if (sampling.num_top_log_probs) check_top_log_probs(sampling, info);
  check_range("top_p_decay", sampling.top_p_decay, sampling.top_p_decay > 0 && sampling.top_p_decay <= 1,
              "above 0 and at most 1");
  check_range("top_p_min", sampling.top_p_min, sampling.top_p_min > 0 && sampling.top_p_min <= 1,
              "above 0 and at most 1");
  if (sampling.top_p_reset_id < -1 || sampling.top_p_reset_id >= info.vocab_size) {
    invalid("top_p_reset_id is ", sampling.top_p_reset_id, "; it must be -1 (none) or a token id, 0 to ",
            info.vocab_size - 1);
  }
  if (sampling.embedding_bias != nullptr) {
    const auto& bias = *sampling.embedding_bias;
    if (bias.size() != static_cast<size_t>(info.vocab_size)) {
      invalid("embedding_bias has ", bias.size(), " values; it must have one for each of the ", info.vocab_size,
              " tokens of the vocabulary");
    }
    const auto is_bad = [](float value) { return std::isnan(value) || value == INFINITY; };
    if (const auto bad = std::find_if(bias.begin(), bias.end(), is_bad); bad != bias.end()) {
      invalid("embedding_bias is ", *bad, " at position ", bad - bias.begin(), "; it must be a number or -infinity");
    }
  }
}

void check_sequences(const Request& request, const EngineInfo& info) {
  const BeamSearchConfig& beams = request.beam_search;
  if (request.num_return_sequences < 1) {
    invalid("num_return_sequences is ", request.num_return_sequences, "; it must be at least 1");
  }
  if (beams.beam_width < 1) invalid("beam_width is ", beams.beam_width, "; it must be at least 1");
  if (beams.beam_width == 1) {
    if (request.num_return_sequences > kMaxReturnSequences) {
      invalid("num_return_sequences is ", request.num_return_sequences, "; it must be at most ", kMaxReturnSequences);
    }
    return;
  }
  if (beams.beam_width > info.max_beam_width) {
    invalid("beam_width is ", beams.beam_width, "; max_beam_width of this engine is ", info.max_beam_width,
            ": ask for fewer beams or rebuild with a larger --max-beam-width");
  }
  if (beams.beam_width * 2 > info.vocab_size) {
    invalid("beam_width is ", beams.beam_width, "; a vocabulary of ", info.vocab_size, " tokens allows at most ",
            info.vocab_size / 2);
  }
  const auto& end_ids = request.sampling.end_ids.empty() ? info.end_ids : request.sampling.end_ids;
  const int32_t candidates = BeamSearch::num_candidates(beams.beam_width, end_ids, request.stop_words);
  if (candidates > info.vocab_size) {
    invalid("with ", end_ids.size(), " end ids, ", request.stop_words.size(), " stop_words and beam_width ",
            beams.beam_width, ", each beam needs ", candidates, " candidates a step, and the vocabulary has ",
            info.vocab_size, " tokens: ask for fewer stop_words or beams");
  }
  if (request.num_return_sequences > beams.beam_width) {
    invalid("num_return_sequences is ", request.num_return_sequences, "; with beam search it is at most beam_width, ",
            beams.beam_width);
  }
  check_range("len_penalty", beams.length_penalty, std::isfinite(beams.length_penalty), "a number");
  check_range("beam_search_diversity_rate", beams.diversity_rate,
              beams.diversity_rate >= 0 && std::isfinite(beams.diversity_rate), "a number >= 0");
  if (request.sampling.num_top_log_probs) {
    invalid("num_top_log_probs does not go with beam_width ", beams.beam_width, "; use 1");
  }
  if (request.guided_decoding) invalid("guided_decoding does not go with beam_width ", beams.beam_width, "; use 1");
  if (!request.draft_tokens.empty()) invalid("draft_input_ids do not go with beam_width ", beams.beam_width, "; use 1");
  if (request.return_generation_logits) {
    invalid("return_generation_logits does not go with beam_width ", beams.beam_width, "; use 1");
  }
}

void check_drafts(const Request& request, const EngineInfo& info, const BatchManagerOptions& options) {
  const bool has_proposer = options.draft_model.engine != nullptr || options.prompt_lookup.max_draft_tokens > 0;
  if (request.num_draft_tokens && *request.num_draft_tokens < 0) {
    invalid("num_draft_tokens is ", *request.num_draft_tokens, "; it must be at least 0");
  }
  if (request.num_draft_tokens.value_or(0) > 0 && !has_proposer) {
    invalid("num_draft_tokens is ", *request.num_draft_tokens,
            ", but there is neither a draft model nor prompt lookup; leave it out, or set up one of them");
  }
  check_tokens("draft_input_ids", request.draft_tokens, info.vocab_size);
  const int64_t drafts = request.draft_tokens.size();
  if (drafts == 0) return;
  if (request.guided_decoding) invalid("draft_input_ids do not go with guided_decoding; leave one of them out");
  const int64_t prompt = options.enable_chunked_context ? 1 : request.input_ids.size();
  if (drafts + prompt > info.max_num_tokens) {
    invalid("draft_input_ids has ", drafts, " tokens; a step of this engine takes max_num_tokens ", info.max_num_tokens,
            ", and so at most ", info.max_num_tokens - prompt,
            " drafts: send fewer, or rebuild with a larger "
            "--max-num-tokens");
  }
}

void check_retention(const KvCacheRetention& retention, int64_t prompt) {
  const auto check_priority = [](const char* name, RetentionPriority priority) {
    if (priority < 0 || priority > 100) invalid(name, " is ", priority, "; it must be in 0 to 100");
  };
  const auto check_duration = [](const char* name, const std::optional<std::chrono::milliseconds>& duration) {
    if (duration && (duration->count() < 0 || *duration > kMaxRetention)) {
      invalid(name, " is ", duration->count(), "; it must be in 0 to ", kMaxRetention.count());
    }
  };
  for (const RetentionRange& range : retention.ranges) {
    const int64_t end = range.end.value_or(prompt);
    if (range.begin < 0 || (range.end && *range.end <= range.begin)) {
      invalid("a retention range begins at ", range.begin, " and ends at ", end,
              "; retention_token_range_starts must be at least 0 and below retention_token_range_ends");
    }
    check_priority("retention_token_range_priorities", range.priority);
    check_duration("retention_token_range_durations_ms", range.duration);
  }
  check_priority("retention_decode_priority", retention.decode_priority);
  check_duration("retention_decode_duration_ms", retention.decode_duration);
}

}  // namespace

void check_request(const Request& request, const EngineInfo& info, const BatchManagerOptions& options,
                   const KvCache& kv_cache) {
  check_lengths(request, info, options);
  check_tokens("input_ids", request.input_ids, info.vocab_size);
  check_sampling(request.sampling, info);
  check_words("stop_words", request.stop_words, info.vocab_size, options.word_limits);
  check_stop_texts(request.stop_texts, options);
  check_words("bad_words", request.bad_words, info.vocab_size, options.word_limits);
  check_sequences(request, info);
  check_blocks(request, info, kv_cache);
  check_logits(request, info);
  check_drafts(request, info, options);
  check_retention(request.retention, static_cast<int64_t>(request.input_ids.size()));
  check_range("priority", request.priority, request.priority >= 0 && request.priority <= 1, "in 0 to 1");
  if (!request.prompt_extra_ids.empty() && request.prompt_extra_ids.size() != request.input_ids.size()) {
    invalid("prompt_table_extra_ids has ", request.prompt_extra_ids.size(),
            " values; it must have one for each of the ", request.input_ids.size(), " input_ids");
  }
  if (request.guided_decoding && options.tokenizer_dir.empty()) {
    throw_error(
        ErrorCode::kUnsupported,
        "guided_decoding needs the model's tokenizer, which was not given to this batch manager (tokenizer_dir)");
  }
}

}  // namespace inflight
