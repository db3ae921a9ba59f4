#pragma once

// Choosing tokens on the GPU, by the rules of engine/sampling_config.h and in the arithmetic of engine/token_choice.cc:
// the same logits, settings and seed give the CPU's token, but where two weights' sums differ by rounding alone.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "engine/tensorrt/kernels/sampling_row.h"

namespace inflight::gpu {

enum class LogitType { kBFloat16, kFloat16, kFloat32 };

// The largest vocabulary: weights are added up in 64-bit fixed point.
inline constexpr int32_t kMaxVocabulary = 1 << 19;
inline constexpr int32_t kMaxTopLogProbs = 64;

// What changes the logits of a row before anything is sampled.
struct LogitAdjustments {
  const float* bias;          // [vocab_size], or null
  const uint32_t* mask;       // [(vocab_size + 31) / 32] bits, 1 = allowed, or null
  const int32_t* seen;        // [num_seen] distinct tokens of the prompt and those generated
  const int32_t* seen_counts;  // [num_seen] how often each was generated
  const int32_t* banned;      // [num_banned] last tokens of bad words, end ids before min_length
  int32_t num_seen;
  int32_t num_banned;
  float repetition_penalty;
  float frequency_penalty;
  float presence_penalty;
};

// adjusted [rows, vocab_size] = the logits, changed. A row with nothing to change is copied.
cudaError_t adjust_logits(const void* logits, LogitType type, int32_t rows, int32_t vocab_size,
                          const LogitAdjustments* adjustments, float* adjusted, cudaStream_t stream);

// tokens [rows]: one of each row of logits [rows, vocab_size], by its settings, [rows] on the device. Like the calls
// below, returns cudaErrorInvalidValue for a vocabulary that is too large, or where a row does not start at a multiple
// of 16 bytes.
cudaError_t sample_tokens(const void* logits, LogitType type, int32_t rows, int32_t vocab_size,
                          const SamplingRow* settings, int32_t* tokens, cudaStream_t stream);

// log_probs [rows]: log-softmax of each row of the model's raw logits at its token.
cudaError_t token_log_probs(const void* logits, LogitType type, int32_t rows, int32_t vocab_size, const int32_t* tokens,
                            float* log_probs, cudaStream_t stream);

// The `count` most likely tokens of each row, best first and equals from the lowest on, with their log-softmax.
// tokens and log_probs [rows, count]; count is at most kMaxTopLogProbs. A row of -inf gives tokens from 0 on.
cudaError_t top_log_probs(const void* logits, LogitType type, int32_t rows, int32_t vocab_size, int32_t count,
                          int32_t* tokens, float* log_probs, cudaStream_t stream);

}  // namespace inflight::gpu
