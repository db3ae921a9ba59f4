#pragma once

#include <cstdint>
#include <span>

namespace inflight {

// The arithmetic of choosing one token from a row of logits, [vocab_size]. Nothing here keeps state.

inline constexpr int32_t kNoToken = -1;  // every logit is -inf or NaN

// Whether these settings leave nothing to chance, by the rules that SamplingConfig gives. Temperatures
// below 1e-5 count as 0, as in vLLM: there the softmax is one-hot in single precision.
bool is_greedy(int32_t top_k, float top_p, float temperature);

// The lowest token with the highest logit, or kNoToken.
int32_t argmax(std::span<const float> logits);

// The token at `uniform`, in [0, 1), of the cumulative distribution softmax(logits / temperature), cut
// down to the top_k most likely tokens (0: all), then to the fewest of them whose probabilities add up
// to top_p (0: all), tokens in ascending order. A tie at either cut goes to the lower tokens.
int32_t draw(std::span<const float> logits, int32_t top_k, float top_p, float temperature, double uniform);

// The tokens.size() <= scores.size() tokens with the highest scores, best first; equals from the lowest on. NaN counts
// as -inf.
void best_tokens(std::span<const float> scores, std::span<int32_t> tokens);

// log(softmax(logits)[token]).
float log_softmax_at(std::span<const float> logits, int32_t token);

// log(softmax(logits)), for every token the same as log_softmax_at().
void log_softmax(std::span<const float> logits, std::span<float> log_probs);

}  // namespace inflight
