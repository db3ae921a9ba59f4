#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "batch_manager/kv_cache.h"
#include "batch_manager/request.h"
#include "engine/engine.h"

namespace inflight {

class ResponseChannel;

// A request on its way through the engine. Owned by the scheduler, touched by the loop thread only.
struct Sequence {
  Sequence(RequestId id, Request request, std::shared_ptr<ResponseChannel> channel);

  // Takes a sampled token: appends it, unless it is an end id, and notes whether the sequence is finished.
  void accept(const SampledToken& sampled);
  bool is_finished() const { return finish_reason != FinishReason::kNone || error.has_value(); }

  int32_t num_generated() const { return static_cast<int32_t>(tokens.size()) - prompt_length; }
  // Tokens that are in `tokens` but not yet in the KV cache: the rest of the prompt, or one generated token.
  int32_t num_uncached() const { return static_cast<int32_t>(tokens.size()) - num_cached; }
  bool in_context_phase() const { return num_cached < prompt_length; }
  // The last generated token is never fed back, so it needs no place.
  int64_t max_cached_tokens() const { return static_cast<int64_t>(prompt_length) + request.max_new_tokens - 1; }

  const RequestId id;
  const Request request;
  const std::shared_ptr<ResponseChannel> channel;
  const int32_t prompt_length;

  std::vector<int32_t> tokens;  // prompt, then generated
  std::vector<float> log_probs;  // of the generated tokens, when asked for
  float cum_log_prob = 0.0f;
  int32_t num_sent = 0;  // generated tokens that were handed to the delivery thread

  int32_t slot = -1;  // of the engine, while running
  int32_t num_cached = 0;
  BlockList blocks;
  int32_t num_blocks = 0;  // of `blocks`, also after they were given back

  FinishReason finish_reason = FinishReason::kNone;
  std::optional<Error> error;
};

}  // namespace inflight
