#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace inflight {

// Chooses next tokens from logits on the host, in the order that SamplingConfig documents.
//
// Each slot draws from its own counter-based generator, keyed by (random_seed, tokens generated so far):
// what a sequence gets never depends on which others share its batch. Different slots may be sampled
// from different threads at once.
class Sampler {
 public:
  Sampler(int32_t max_batch_size, int32_t vocab_size);

  // Gives the slot to a new sequence. Ids outside the vocabulary are ignored: they can never be sampled.
  void configure(int32_t slot, const SamplingConfig& config, std::span<const int32_t> prompt);

  // `logits` is [vocab_size]; it is changed during the call and as it was after it.
  //
  // Among equal logits the lowest token wins. NaN counts as -inf. When no token is left (all logits are
  // -inf or masked), the slot's first end id ends the sequence, or else the result is token 0.
  SampledToken sample(int32_t slot, std::span<float> logits);

 private:
  // A token that a penalty applies to: one of the prompt or a generated one.
  struct SeenToken {
    int32_t token;
    int32_t generated_count;
  };
  struct Slot {
    SamplingConfig config;
    int32_t generated = 0;
    std::vector<SeenToken> seen;   // ascending tokens; kept only with penalties
    std::vector<int32_t> recent;   // the history's end, as long as bad words can look back
    std::vector<std::pair<int32_t, float>> replaced;  // (token, raw logit) in order of change
  };

  void penalize(Slot& slot, std::span<float> logits) const;
  void mask(Slot& slot, std::span<float> logits) const;
  void remember(Slot& slot, int32_t token) const;

  int32_t vocab_size_;
  std::vector<Slot> slots_;
};

}  // namespace inflight
