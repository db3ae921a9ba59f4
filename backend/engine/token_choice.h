#pragma once

#include <cstdint>
#include <span>

namespace inflight {

// The arithmetic of choosing one token from a row of logits, [vocab_size]. Nothing here keeps state.

inline constexpr int32_t kNoToken = -1;  // every logit is -inf or NaN

// How a token is drawn; SamplingConfig says what each of them means.
struct DrawSettings {
  int32_t top_k = 0;
  float top_p = 0.0f;
  float min_p = 0.0f;
  float temperature = 1.0f;
};

// Whether these settings leave nothing to chance, by the rules that SamplingConfig gives. Temperatures
// below 1e-5 count as 0, as in vLLM: there the softmax is one-hot in single precision.
bool is_greedy(const DrawSettings& settings);

// The lowest token with the highest logit, or kNoToken.
int32_t argmax(std::span<const float> logits);

// The token at `uniform`, in [0, 1), of the cumulative distribution softmax(logits / temperature), cut
// down to the tokens with at least min_p of the highest probability, to the top_k most likely of these (0: all),
// then to the fewest of them whose probabilities add up to top_p (0: all), tokens in ascending order. A tie at one of
// the last two cuts goes to the lower tokens.
int32_t draw(std::span<const float> logits, const DrawSettings& settings, double uniform);

// The tokens.size() <= scores.size() tokens with the highest scores, best first; equals from the lowest on. NaN counts
// as -inf.
void best_tokens(std::span<const float> scores, std::span<int32_t> tokens);

// log(softmax(logits)) of these tokens.
void log_softmax_at(std::span<const float> logits, std::span<const int32_t> tokens, std::span<float> log_probs);

// 1 + the number of tokens with a higher logit.
int32_t rank_of(std::span<const float> logits, int32_t token);

// log(softmax(logits)), for every token the same as log_softmax_at().
void log_softmax(std::span<const float> logits, std::span<float> log_probs);

}  // namespace inflight
