#include "engine/tensorrt/decoder.h"

#include <algorithm>
#include <cmath>

#include "engine/tensorrt/kernels/sampling.h"
#include "engine/tensorrt/operations/operations.h"

namespace inflight::gpu {
namespace {

using Value = OperationGraph::Value;
using Range = OperationGraph::Range;

struct Step {
  Value tokens, positions, sequences, block_table, lengths, first_queries, longest_chunk, sampled_rows, sampling,
      cos_sin;
};

Range up_to(int64_t most) { return {1, std::min<int64_t>(most, 64), most}; }

Step add_step(OperationGraph& graph, const DecoderShape& shape, const StepLimits& limits) {
  const auto integers = [&](const char* name, std::vector<OperationGraph::Size> sizes) {
    return graph.input(name, ElementType::kInt32, sizes);
  };
  const Range tokens = up_to(limits.max_tokens), sequences = up_to(limits.max_sequences);
  const Range rows = up_to(limits.max_sampled_rows), chunks = {1, 1, limits.max_sequences + 1};
  return {.tokens = integers(names::kTokens, {tokens}),
          .positions = integers(names::kPositions, {tokens}),
          .sequences = integers(names::kSequences, {tokens}),
          .block_table = integers(names::kBlockTable, {sequences, up_to(limits.max_blocks_per_sequence)}),
          .lengths = integers(names::kLengths, {sequences}),
          .first_queries = integers(names::kFirstQueries, {chunks}),
          .longest_chunk = integers(names::kLongestChunk, {Range{1, 1, limits.max_tokens}}),
          .sampled_rows = integers(names::kSampledRows, {rows}),
          .sampling = integers(names::kSampling, {rows, sizeof(SamplingRow) / 4}),
          .cos_sin = graph.input(names::kCosSin, ElementType::kFloat32, {shape.positions, shape.head_size})};
}

// The operations that all layers share.
struct Parts {
  std::unique_ptr<Operation> norm, qkv, attention, attention_output, gate_up, down;
};

Parts make_parts(const DecoderShape& shape, const std::function<GemmTactics(const GemmShape&)>& tactics) {
  const auto gemm = [&](const GemmShape& of) { return make_gemm(of, tactics(of)); };
  return {.norm = make_rms_norm({shape.type, shape.hidden_size, shape.norm_epsilon}),
          .qkv = gemm(shape.qkv()),
          .attention = make_attention({.type = shape.type,
                                       .cache_type = shape.type,
                                       .query_heads = shape.query_heads,
                                       .kv_heads = shape.kv_heads,
                                       .head_size = shape.head_size,
                                       .rotary_size = shape.head_size,
                                       .is_interleaved = 0,
                                       .tokens_per_block = shape.tokens_per_block,
                                       .window = 0,
                                       .sinks = 0,
                                       .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_size)),
                                       .scores = Scores::kPlain,
                                       .soft_cap = 0,
                                       .key_scale = 1,
                                       .value_scale = 1}),
          .attention_output = gemm(shape.attention_output()),
          .gate_up = gemm(shape.gate_up()),
          .down = gemm(shape.down())};
}

Value add_layer(OperationGraph& graph, const DecoderShape& shape, const Parts& parts, const Step& step, int32_t layer,
                Value hidden) {
  const auto name = [&](const char* of) { return layer_name(layer, of); };
  const auto weight = [&](const char* of, ElementType type, std::vector<OperationGraph::Size> sizes) {
    return graph.input(name(of), type, sizes);
  };
  const auto matrix = [&](const char* of, const GemmShape& product) {
    return weight(of, shape.type, {product.columns, product.depth});
  };
  const auto vector = [&](const char* of) { return weight(of, ElementType::kFloat32, {shape.hidden_size}); };

  Value x = graph.add(name("normalize_attention"), *parts.norm, {hidden, vector(names::kAttentionNorm)});
  x = graph.add(name("project_qkv"), *parts.qkv, {x, matrix(names::kQkv, shape.qkv())});
  x = graph.add(
      name("attend"), *parts.attention,
      {x, weight(names::kKeyCache, shape.type, {1}), weight(names::kValueCache, shape.type, {1}), step.cos_sin,
       step.positions, step.sequences, step.block_table, step.lengths, step.first_queries, step.longest_chunk});
  hidden = graph.add(name("project_attention"), *parts.attention_output,
                     {x, matrix(names::kAttentionOutput, shape.attention_output()), hidden});
  x = graph.add(name("normalize_mlp"), *parts.norm, {hidden, vector(names::kMlpNorm)});
  x = graph.add(name("project_up"), *parts.gate_up, {x, matrix(names::kGateUp, shape.gate_up())});
  return graph.add(name("project_down"), *parts.down, {x, matrix(names::kDown, shape.down()), hidden});
}

}  // namespace

std::string layer_name(int32_t layer, const char* name) { return "layers." + std::to_string(layer) + "." + name; }

void add_decoder(OperationGraph& graph, const DecoderShape& shape, const StepLimits& limits,
                 const std::function<GemmTactics(const GemmShape&)>& tactics) {
  const Step step = add_step(graph, shape, limits);
  const Parts parts = make_parts(shape, tactics);
  const Value table = graph.input(names::kEmbedding, shape.type, {shape.vocab_size, shape.hidden_size});
  const auto rows = make_embedding({shape.type, shape.hidden_size, 0, 1.0f});
  Value hidden = graph.add("embed", *rows, {table, step.tokens});
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    hidden = add_layer(graph, shape, parts, step, layer, hidden);
  }
  Value x = graph.add("take_sampled_rows", *rows, {hidden, step.sampled_rows});
  x = graph.add("normalize_final", *parts.norm,
                {x, graph.input(names::kFinalNorm, ElementType::kFloat32, {shape.hidden_size})});
  const Value weight = graph.input(names::kLmHead, shape.type, {shape.vocab_size, shape.hidden_size});
  const Value logits = graph.add("project_logits", *make_gemm(shape.lm_head(), tactics(shape.lm_head())), {x, weight});
  graph.output(logits, names::kLogits, shape.type);
  const Value sampled = graph.add("sample", *make_sampling({shape.type, shape.vocab_size}), {logits, step.sampling});
  graph.output(sampled, names::kSampled, ElementType::kInt32);
}

}  // namespace inflight::gpu
