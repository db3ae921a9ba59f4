#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace inflight {

// Chooses next tokens from logits on the host, in the order that SamplingConfig documents.
//
// What a slot gets is a function of its configuration, its prompt, the tokens generated so far and the logits. Chance
// comes from a counter-based generator keyed by (random_seed, tokens generated so far): neither the other sequences of
// a batch nor a pause matter. Different slots may be sampled from different threads at once.
class Sampler {
 public:
  Sampler(int32_t max_batch_size, int32_t vocab_size);

  // Gives the slot to a sequence that has generated these tokens. Ids outside the vocabulary are ignored: they can
  // never be sampled. Throws kInvalidArgument, and changes nothing, for an embedding_bias of another size than the
  // vocabulary and for more candidates or top log-probs than it has.
  void configure(int32_t slot, const SamplingConfig& config, std::span<const int32_t> prompt,
                 std::span<const int32_t> generated = {});

  // Gives the slot to a sequence that goes on as the parent slot's does.
  void fork(int32_t parent, int32_t slot) { slots_[slot] = slots_[parent]; }

  // SamplingConfig::num_candidates of the slot.
  int32_t num_candidates(int32_t slot) const { return slots_[slot].config.num_candidates; }
  // How many log-probs sample() returns beside the token.
  int32_t num_top_log_probs(int32_t slot) const { return slots_[slot].config.num_top_log_probs.value_or(0); }

  // The next token from `logits`, [vocab_size]. `mask` is SequenceSlice::mask.
  //
  // Among equal logits the lowest token wins. NaN counts as -inf. When no token is left (all logits are
  // -inf or masked), the slot's first end id ends the sequence, or else the result is token 0.
  // top_log_probs: [num_top_log_probs of the slot], of the raw logits, best first.
  SampledToken sample(int32_t slot, std::span<const float> logits, std::span<const uint32_t> mask = {},
                      std::span<TokenLogProb> top_log_probs = {});

  // The slot's num_candidates best candidates. The slot stays as it is: follow() tells it the choice.
  void candidates(int32_t slot, std::span<const float> logits, std::span<const uint32_t> mask,
                  std::span<SampledToken> best) const;

  // `token` stands at `position` of the sequence: the next generated one, if that is one further than what the slot
  // knows already; otherwise nothing happens.
  void follow(int32_t slot, int32_t position, int32_t token);

 private:
  // A token that a penalty applies to: one of the prompt or a generated one.
  struct SeenToken {
    int32_t token;
    int32_t generated_count;
  };
  struct Slot {
    SamplingConfig config;
    int32_t prompt_length = 0;
    int32_t num_generated = 0;
    float top_p = 0.0f;           // after its decay
    std::vector<SeenToken> seen;  // ascending tokens; kept only with penalties
    WordAutomaton::State bad_word_beginning = WordAutomaton::kStart;  // that the history ends with
  };

  bool adjusts(const Slot& slot, std::span<const uint32_t> mask) const;
  void adjust(const Slot& slot, std::span<const uint32_t> mask, std::span<float> scores) const;
  void remember(Slot& slot, int32_t token) const;

  int32_t vocab_size_;
  std::vector<Slot> slots_;
};

}  // namespace inflight
