#pragma once

// A decoder of Llama's architecture as a graph of operations, whose weights, cache and step are inputs.

#include <functional>
#include <string>

#include "engine/tensorrt/gemm/gemm_shape.h"
#include "engine/tensorrt/operation_graph.h"

namespace inflight::gpu {

struct DecoderShape {
  ElementType type;  // kBFloat16 or kFloat16
  int32_t hidden_size;
  int32_t intermediate_size;
  int32_t layers;
  int32_t query_heads;
  int32_t kv_heads;
  int32_t head_size;
  int32_t vocab_size;
  int32_t positions;
  float norm_epsilon;
  int32_t tokens_per_block;

  int32_t qkv_size() const { return (query_heads + 2 * kv_heads) * head_size; }
  GemmShape qkv() const { return product(GemmEpilogue::kStore, qkv_size(), hidden_size); }
  GemmShape attention_output() const {
    return product(GemmEpilogue::kAddResidual, hidden_size, query_heads * head_size);
  }
  GemmShape gate_up() const { return product(GemmEpilogue::kSwiGlu, 2 * intermediate_size, hidden_size); }
  GemmShape down() const { return product(GemmEpilogue::kAddResidual, hidden_size, intermediate_size); }
  GemmShape lm_head() const { return product(GemmEpilogue::kStore, vocab_size, hidden_size); }

 private:
  GemmShape product(GemmEpilogue epilogue, int32_t columns, int32_t depth) const {
    const GemmType of = type == ElementType::kFloat16 ? GemmType::kFloat16 : GemmType::kBFloat16;
    return {of, of, epilogue, columns, depth};
  }
};

// What one step may hold.
struct StepLimits {
  int32_t max_tokens;
  int32_t max_sequences;
  int32_t max_blocks_per_sequence;
  int32_t max_sampled_rows;
};

// The names of the graph's inputs; those of a layer begin with layer_name().
namespace names {
inline constexpr const char* kTokens = "tokens";                // [tokens] int32
inline constexpr const char* kPositions = "positions";          // [tokens] int32
inline constexpr const char* kSequences = "sequences";          // [tokens] int32
inline constexpr const char* kBlockTable = "block_table";       // [sequences, entries] int32
inline constexpr const char* kLengths = "lengths";              // [sequences] int32
inline constexpr const char* kFirstQueries = "first_queries";   // [chunks + 1] int32
inline constexpr const char* kLongestChunk = "longest_chunk";   // [tokens of the longest chunk, or 1] int32
inline constexpr const char* kSampledRows = "sampled_rows";     // [rows] int32, of the tokens
inline constexpr const char* kSampling = "sampling";            // [rows, sizeof(SamplingRow) / 4] int32
inline constexpr const char* kCosSin = "cos_sin";               // [positions, head_size] float32
inline constexpr const char* kEmbedding = "embedding";          // [vocab_size, hidden_size]
inline constexpr const char* kFinalNorm = "final_norm";         // [hidden_size] float32
inline constexpr const char* kLmHead = "lm_head";               // [vocab_size, hidden_size]
inline constexpr const char* kAttentionNorm = "attention_norm";  // of a layer: [hidden_size] float32
inline constexpr const char* kQkv = "qkv";                      // [qkv_size, hidden_size]
inline constexpr const char* kAttentionOutput = "o";            // [hidden_size, query_heads head_size]
inline constexpr const char* kMlpNorm = "mlp_norm";             // [hidden_size] float32
inline constexpr const char* kGateUp = "gate_up";               // [2 intermediate_size, hidden_size]: gate, then up
inline constexpr const char* kDown = "down";                    // [hidden_size, intermediate_size]
inline constexpr const char* kKeyCache = "key_cache";           // [1], see AttentionInput
inline constexpr const char* kValueCache = "value_cache";
inline constexpr const char* kLogits = "logits";                // an output: [rows, vocab_size]
inline constexpr const char* kSampled = "sampled_tokens";       // an output: [rows] int32
}  // namespace names

std::string layer_name(int32_t layer, const char* name);

// `tactics` gives those of a product's shape; none: what cuBLASLt takes.
void add_decoder(OperationGraph& graph, const DecoderShape& shape, const StepLimits& limits,
                 const std::function<GemmTactics(const GemmShape&)>& tactics);

}  // namespace inflight::gpu
