#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cpu/cpu_features.h"

namespace inflight::cpu {

// Attention of neighboring tokens of one sequence, for the query heads that share one key/value head,
// over that sequence's paged keys and values (layout: kv_cache_storage.h).
struct AttentionTask {
  const float* queries;       // token i, head h at queries + i * query_stride + h * head_size
  float* output;              // likewise, with output_stride
  int64_t query_stride;
  int64_t output_stride;
  int32_t num_tokens;         // times heads_per_kv_head <= kMaxAttentionRows, or it is 1
  int32_t heads_per_kv_head;  // query heads that share the key/value head
  int32_t head_size;
  int32_t first_position;     // of the first token; it sees positions up to its own
  int32_t window;             // and only positions > its own - window; 0 = all
  int32_t sink_tokens;        // besides, with a window, the first positions
  float scale;                // on the dot products

  const float* cache;         // 32-bit words of keys of block 0; its values lie right behind them
  bool is_bfloat16;           // two to a word
  int64_t block_stride;       // words from a block to the next
  const int32_t* block_ids;   // of blocks that no token sees, any number
  int32_t tokens_per_block;   // a power of two

  float* scratch;             // attention_scratch_size(max rows, head_size) floats
};

inline constexpr int32_t kMaxAttentionRows = 60;
inline constexpr int32_t kKeysPerTile = 64;  // of attention

inline constexpr int32_t kAttentionTileRows = 16;   // of the matrix unit, where there is one
inline constexpr int32_t kAttentionEdgeWords = 16;  // depth of its tiles

constexpr size_t attention_scratch_size(int32_t rows, int32_t head_size) {
  const int32_t padded = (rows + kAttentionTileRows - 1) / kAttentionTileRows * kAttentionTileRows;
  return size_t(padded) * (kKeysPerTile + 2 * size_t(head_size) + 2) + size_t(kAttentionEdgeWords) * head_size;
}

// The operations between the linear layers, for one instruction set. Sizes are any number >= 0,
// pointers need no alignment, nothing allocates.
struct Operations {
  // y = x / sqrt(mean(x^2) + epsilon) * weight, all [size]. y may be x. (arXiv:1910.07467)
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int64_t size, float* y);

  // Turns each of `num_heads` heads at x, [num_heads, 2 * half], in place by the angles whose cos and sin
  // are [half]: element i with element half + i ("rotate_half").
  void (*rotate)(float* x, int64_t num_heads, const float* cos, const float* sin, int64_t half);

  // y[i] = silu(gate_up[i]) * gate_up[size + i]; silu(x) = x / (1 + e^-x). (SwiGLU, arXiv:2002.05202)
  void (*silu_and_multiply)(const float* gate_up, int64_t size, float* y);

  // Rounds to the nearest, ties to even; what is not finite stays so. y may begin where x does.
  void (*to_bfloat16)(const float* x, int64_t size, uint16_t* y);

  // softmax(scale * queries · keys^T) · values, online over tiles of keys (arXiv:2205.14135).
  void (*attention)(const AttentionTask& task);
};

const Operations& operations(Isa isa);

}  // namespace inflight::cpu
