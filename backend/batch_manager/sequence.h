#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "batch_manager/beam_search.h"
#include "batch_manager/kv_cache.h"
#include "batch_manager/prompt_lookup.h"
#include "batch_manager/request.h"
#include "batch_manager/request_state.h"
#include "engine/engine.h"

namespace inflight {

// A slot of the engine for a beam, with the beam's own blocks.
struct BeamSlot {
  int32_t slot = -1;
  BlockList blocks;
  int32_t num_sent_blocks = 0;  // of `blocks`: the engine knows them
  int32_t parent_slot = -1;     // >= 0: the engine has yet to fork it from this slot, with num_sent_blocks blocks
};

// One continuation of a request's prompt on its way through the engine; with beam search, all of its beams. Owned by
// the scheduler, touched by the loop thread only.
struct Sequence {
  Sequence(std::shared_ptr<RequestState> state, int32_t index, int32_t vocab_size);

  // Takes a sampled token: appends it, unless it is an end id, and notes whether the sequence is finished.
  // top: its num_top_log_probs() most likely alternatives.
  void accept(const SampledToken& sampled, std::span<const TokenLogProb> top = {});
  // Ends its request with this error.
  void fail(const std::exception& failure);
  bool is_finished() const { return finish_reason != FinishReason::kNone || state->is_ended(); }

  double rank() const { return state->rank + index; }  // smaller is scheduled first

  // Gives the response what it may have of the generated tokens that were not sent yet.
  void take_sendable(Response& response);
  // Generated tokens that may be sent: not those whose text may turn out to be a stop text that is left out.
  int32_t num_sendable() const {
    return is_finished() ? num_generated() : num_generated() - static_cast<int32_t>(held_back.size());
  }

  int32_t num_generated() const { return static_cast<int32_t>(tokens.size()) - prompt_length; }
  std::span<const int32_t> generated() const { return std::span(tokens).subspan(prompt_length); }
  // Of its next slice's first token: the most that it may be while drafts are in flight.
  int32_t next_position() const { return num_cached + num_launched; }
  // Tokens that no launched step puts into the KV cache: the rest of the prompt, all of a sequence that goes on after a
  // pause, or one generated token, known or expected.
  int32_t num_uncached() const { return static_cast<int32_t>(tokens.size()) + num_expected - next_position(); }
  bool in_context_phase() const { return beams.empty() && (next_position() < prompt_length || num_uncached() > 1); }
  // Whether its next token may be asked for: steps in flight may bring the last one, or one that must be known before.
  bool may_generate() const {
    return num_expected == 0 || (!state->needs_tokens && num_generated() + num_expected < request.max_new_tokens);
  }
  // The last generated token is never fed back, so it needs no place.
  int64_t max_cached_tokens() const { return static_cast<int64_t>(prompt_length) + request.max_new_tokens - 1; }
  size_t num_top_log_probs() const { return static_cast<size_t>(request.sampling.num_top_log_probs.value_or(0)); }
  int32_t num_slots() const { return request.beam_search.beam_width; }
  bool is_beam_search() const { return beam_search != nullptr; }
  // Generated tokens that may still come, beside one in the next step.
  int32_t max_drafts() const { return request.max_new_tokens - num_generated() - 1; }
  SamplingConfig sampling() const;  // of the engine's slot
  // Of its next slice, whose last token samples or not.
  ReturnedLogits returned_logits(bool samples) const;
  // Of the tokens that are in the KV cache.
  PrefixKey cached_key() const;

  const std::shared_ptr<RequestState> state;
  const Request& request;  // of `state`
  const std::shared_ptr<const CompiledWords> words;
  const int32_t index;     // < request.num_return_sequences
  const std::shared_ptr<ResponseChannel> channel;
  const int32_t prompt_length;
  const size_t vocab_size;

  std::vector<int32_t> tokens;   // prompt, then generated
  std::vector<float> log_probs;  // of the generated tokens, when asked for
  float cum_log_prob = 0.0f;     // of the tokens that were sent
  std::vector<int32_t> ranks;               // of the generated tokens, when asked for
  std::vector<TokenLogProb> top_log_probs;  // [generated, num_top_log_probs], best first
  std::vector<float> context_logits;  // [num_cached, vocab_size] of a prompt that is being computed, when asked for
  std::vector<float> generation_logits;  // [unsent tokens, vocab_size], when asked for
  int32_t num_sent = 0;  // generated tokens that were handed to the delivery thread
  std::vector<int32_t> drafts;  // for the next step
  std::optional<PromptLookup> prompt_lookup;
  StopProgress stop_progress;
  StopMatch stop;  // with FinishReason::kStopWords
  std::deque<int64_t> held_back;  // of the last generated tokens, for stop texts: where in the text each ends

  int32_t slot = -1;  // of the engine, while running
  uint64_t run = 0;   // one of the scheduler's: from a start to the end or a pause
  bool is_set_up = false;  // the engine knows what the slot is for
  bool has_guide_started = false;
  int32_t num_cached = 0;  // tokens whose keys and values finished steps have put into `blocks`; of each beam
  int32_t num_launched = 0;  // tokens and drafts of its slices in flight
  int32_t num_expected = 0;  // tokens that these sample, all drafts accepted: they will follow `tokens`
  BlockList blocks;
  int32_t num_sent_blocks = 0;  // of `blocks`: the engine knows them
  bool is_onboarding = false;  // blocks are on their way from the host tier
  std::optional<StepNumber> onboarding;  // whose copies they are, once it is launched

  // With beam search, after the context phase: the running beams instead of slot and blocks.
  std::unique_ptr<BeamSearch> beam_search;
  std::vector<BeamSlot> beams;
  std::vector<BeamSlot> spare_beams;  // slots and promised blocks of beams to come

  // As Response has them; also after the blocks were given back.
  int32_t num_blocks = 0;
  int32_t num_reused_blocks = 0;
  PerfMetrics perf_metrics;

  FinishReason finish_reason = FinishReason::kNone;

 private:
  void finish(FinishReason reason);
  void hold_back();
};

}  // namespace inflight
