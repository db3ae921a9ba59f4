#pragma once

// The operations that a plan may hold.

#include "engine/tensorrt/gemm/gemm_shape.h"
#include "engine/tensorrt/operations/operation.h"

namespace inflight::gpu {

// Throws Error for a type that there is not, and for constants that are not its own.
std::unique_ptr<Operation> read_operation(std::string_view type, std::span<const std::byte> constants);

// (x [tokens, depth], W [columns, depth], with kAddResidual a residual [tokens, columns]) → [tokens, output_columns];
// of kFloat8E4M3 the scales of x [1] and of W [1] follow.
std::unique_ptr<Operation> make_gemm(const GemmShape& shape, GemmTactics tactics);

struct RmsNormConstants {
  ElementType type;
  int32_t size;
  float epsilon;
  bool operator==(const RmsNormConstants&) const = default;
};
// (x [tokens, size], weight [size] float32) → [tokens, size]
std::unique_ptr<Operation> make_rms_norm(const RmsNormConstants& constants);

enum class Activation : int32_t { kSilu, kGeluTanh, kGeluErf, kReluSquared };
struct ActivationConstants {
  ElementType type;
  Activation activation;
  int32_t is_gated;
  int32_t size;  // of a row of the output
  bool operator==(const ActivationConstants&) const = default;
};
// x [tokens, 2 size], or [tokens, size] unless gated → [tokens, size]
std::unique_ptr<Operation> make_activation(const ActivationConstants& constants);

struct EmbeddingConstants {
  ElementType type;
  int32_t size;
  int32_t first_id;
  float scale;
  bool operator==(const EmbeddingConstants&) const = default;
};
// (table [ids, size], ids [tokens]) → [tokens, size]. Takes rows of any matrix, as those that are sampled from.
std::unique_ptr<Operation> make_embedding(const EmbeddingConstants& constants);

enum class Scores : int32_t { kPlain, kSoftCap, kAlibi };
struct AttentionConstants {
  ElementType type;
  ElementType cache_type;
  int32_t query_heads;
  int32_t kv_heads;
  int32_t head_size;
  int32_t rotary_size;
  int32_t is_interleaved;
  int32_t tokens_per_block;  // a power of two
  int32_t window;            // keys that a token sees, up to its own; 0: all
  int32_t sinks;
  float scale;
  Scores scores;
  float soft_cap;
  float key_scale;  // 1 unless the cache is quantized
  float value_scale;
  bool operator==(const AttentionConstants&) const = default;
};
// What attention needs to know of a step, in the order of its inputs. Sequences that generate come first, with one
// token each; the tokens of the others' chunks follow, sequence by sequence.
enum AttentionInput {
  kQkv,           // [tokens, (query_heads + 2 kv_heads) head_size]
  kKeyCache,  // [1]: its first element stands for [blocks, tokens_per_block, kv_heads, head_size], which is written
  kValueCache,  // likewise
  kCosSin,  // [positions, rotary_size] float32: cosines, then sines
  kPositions,  // [tokens] int32
  kSequences,  // [tokens] int32: rows of the block table
  kBlockTable,  // [sequences, entries] int32, wide enough for the longest sequence, and little wider
  kLengths,  // [sequences] int32: tokens in the cache, this step's among them
  kFirstQueries,  // [chunks + 1] int32: each chunk's first token, counted from the first chunk's
  kLongestChunk,  // [tokens of the longest chunk, or 1] int32, not read: its shape says what must be known on the host
  kNumAttentionInputs
};
// → [tokens, query_heads head_size]
std::unique_ptr<Operation> make_attention(const AttentionConstants& constants);

struct SamplingConstants {
  ElementType type;
  int32_t vocab_size;
  bool operator==(const SamplingConstants&) const = default;
};
// (logits [rows, vocab_size], settings [rows, sizeof(SamplingRow) / 4] int32) → tokens [rows] int32
std::unique_ptr<Operation> make_sampling(const SamplingConstants& constants);

}  // namespace inflight::gpu
