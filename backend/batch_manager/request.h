#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/error.h"
#include "engine/engine.h"
#include "engine/sampling_config.h"
#include "engine/word_list.h"

namespace inflight {

using RequestId = uint64_t;

enum class FinishReason {
  kNone,       // not finished
  kEndId,      // an end id was sampled; it is not part of the tokens
  kStopWords,  // a stop word or text was completed; its tokens are part of the tokens, as in TensorRT-LLM
  kLength,     // max_new_tokens were generated
  kCancelled,
};

// As in transformers' beam search; the score of a beam is cum_log_prob / num_generated^length_penalty.
enum class EarlyStopping {
  kNo,     // stop when no running beam is likely to beat the finished ones: HF's early_stopping=False
  kYes,    // stop as soon as beam_width beams are finished: HF's early_stopping=True
  kNever,  // stop only when no running beam can beat the finished ones: HF's early_stopping="never"
};

struct BeamSearchConfig {
  int32_t beam_width = 1;  // 1: no beam search; at most the engine's max_beam_width
  float length_penalty = 0.0f;
  EarlyStopping early_stopping = EarlyStopping::kYes;
  float diversity_rate = 0.0f;  // >= 0; subtracted times the rank among siblings (arXiv:1611.08562)
};

// A larger number is evicted later.
using RetentionPriority = int32_t;  // 0 .. 100
inline constexpr RetentionPriority kDefaultRetentionPriority = 35;

// How long the KV-cache blocks of a part of the prompt are worth keeping for others.
struct RetentionRange {
  int32_t begin = 0;              // token index
  std::optional<int32_t> end;     // exclusive; none: the prompt's end
  RetentionPriority priority = kDefaultRetentionPriority;
  std::optional<std::chrono::milliseconds> duration;  // then the priority is the default again; none: for ever
};

struct KvCacheRetention {
  std::vector<RetentionRange> ranges;  // of the prompt; where none applies, the default priority
  RetentionPriority decode_priority = kDefaultRetentionPriority;  // of generated tokens' blocks
  std::optional<std::chrono::milliseconds> decode_duration;
};

// What the text must look like.
struct GuidedDecoding {
  enum class Type {
    kJson,        // any JSON object; `guide` is empty
    kJsonSchema,  // `guide` is a JSON schema
    kRegex,       // a regular expression that the whole text matches
    kGrammar,     // EBNF as xgrammar and llama.cpp's GBNF write it; its root rule is `root`
    kChoice,      // a JSON list of strings, one of which is the text
  };
  Type type = Type::kJson;
  std::string guide;
};

// Texts that end the generation, wherever tokens begin and end.
struct StopTexts {
  std::vector<std::string> texts;   // UTF-8, none of them empty
  bool include_in_output = true;  // whether the text ends after the stop text or before it; the tokens end after it
  bool skip_special_tokens = true;  // as whoever turns the tokens into text does
  bool follows_prompt = false;  // the text goes on with the prompt's
  int32_t min_tokens = 0;  // none is looked for in the text of so many tokens
};

// One prompt and how to continue it. Everything is checked by BatchManager::submit.
struct Request {
  std::vector<int32_t> input_ids;  // 1 .. max_seq_len - 1 tokens, each in [0, vocab_size)
  int32_t max_new_tokens = 0;  // > 0; input_ids + max_new_tokens <= max_seq_len
  SamplingConfig sampling;  // empty end_ids → the engine's own; {-1} → none; its bad words: those below
  WordList stop_words;  // token sequences that end the generation
  StopTexts stop_texts;
  WordList bad_words;  // token sequences that must never be completed
  bool streaming = false;  // false: one response for each sequence with all tokens, at its end

  // Sequences with seeds random_seed, random_seed + 1 …; with beam search, the best of its beams.
  int32_t num_return_sequences = 1;
  BeamSearchConfig beam_search;  // streaming: each response has the beams as they are, with all of their tokens
  // Beams are one sequence.
  int32_t num_sequences() const { return beam_search.beam_width > 1 ? 1 : num_return_sequences; }

  float priority = 0.5f;  // 0 .. 1; a larger one is scheduled earlier, but overtakes no one for ever
  std::optional<std::chrono::steady_clock::time_point> deadline;  // then it ends with kUnavailable
  std::vector<int32_t> draft_tokens;  // a guess at the first generated tokens, verified in one step
  // In a step, of those that the draft model or prompt lookup propose; none: as many as the batch manager's options
  // say.
  std::optional<int32_t> num_draft_tokens;
  std::optional<GuidedDecoding> guided_decoding;
  bool return_context_logits = false;  // the prompt is then computed anew: no KV-cache reuse
  bool return_generation_logits = false;

  KvCacheRetention retention;
  // Cached blocks are shared only between requests that agree in these.
  uint64_t lora_task_id = 0;
  std::vector<uint64_t> prompt_extra_ids;  // one for each prompt token, or empty

  // Called when the first step that it takes part in begins. May be empty. From the loop thread; must not throw.
  std::function<void()> on_start;
  // Asked before every step; true cancels the request. May be empty. Called from the loop thread; must not throw.
  std::function<bool()> is_cancelled;
};

// What ended a sequence.
struct StopMatch {
  int32_t text = -1;  // index of the stop text; -1: a sequence of tokens
  int32_t num_cut_bytes = 0;  // at the end of the text of all its tokens: what comes after the stop text, and the stop
                              // text itself, if it is left out
};

// One beam of a finished beam search.
struct Beam {
  std::vector<int32_t> tokens;  // generated; without the end id
  std::vector<float> log_probs;  // parallel to tokens
  float cum_log_prob = 0.0f;  // over the end id as well
  FinishReason finish_reason = FinishReason::kNone;
  StopMatch stop;  // with kStopWords
};

// How one sequence has got on so far. What has not happened yet has the clock's epoch.
struct PerfMetrics {
  using TimePoint = std::chrono::steady_clock::time_point;
  TimePoint arrival{};  // of the request
  TimePoint first_scheduled{};
  TimePoint first_token{};
  TimePoint last_token{};
  int32_t draft_tokens = 0;
  int32_t accepted_draft_tokens = 0;
};

// Tokens generated since the last response of this sequence. Each sequence of a request has one response with
// is_sequence_final; exactly one response of the request, its last, is final.
struct Response {
  int32_t sequence_index = 0;  // < num_return_sequences; 0 with beam search
  std::vector<int32_t> tokens;
  std::vector<float> log_probs;  // parallel to tokens, when asked for
  std::vector<int32_t> ranks;  // parallel to tokens, with SamplingConfig::num_top_log_probs
  std::vector<TokenLogProb> top_log_probs;  // [tokens, num_top_log_probs], best first
  float cum_log_prob = 0.0f;  // over all generated tokens up to here
  // With beam search, instead of the above: num_return_sequences, best first; before the last response those that are
  // finished, then those that run.
  std::vector<Beam> beams;
  // Up to kPrecedingTokens generated tokens before `tokens`: what a stateless detokenizer needs to go
  // on in the middle of a word or a character. Empty in the first response.
  std::vector<int32_t> preceding_tokens;
  // Shared: every sequence of a request has the same prompt.
  std::shared_ptr<const std::vector<float>>
      context_logits;  // [prompt, vocab_size], in the first response, when asked for
  std::vector<float> generation_logits;  // [tokens, vocab_size], when asked for; not with beam search
  std::shared_ptr<const void> logits_memory;  // the request's share of the budget: kept as long as the logits are
  // Of this sequence up to here: blocks in its list, those of them taken from the cache's reuse, and the others.
  int32_t kv_cache_alloc_total_blocks = 0;
  int32_t kv_cache_reused_blocks = 0;
  int32_t kv_cache_alloc_new_blocks = 0;
  PerfMetrics perf_metrics;
  bool is_sequence_final = false;
  bool is_final = false;
  FinishReason finish_reason = FinishReason::kNone;
  StopMatch stop;  // with kStopWords
  std::optional<Error> error;  // with is_sequence_final; every sequence of the request that still runs ends with it
};

inline constexpr size_t kPrecedingTokens = 16;

// Called from the delivery thread, in order for one request; must not throw.
using ResponseCallback = std::function<void(RequestId, const Response&)>;

}  // namespace inflight
