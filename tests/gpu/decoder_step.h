#pragma once

// Weights, cache and steps of a decoder on the GPU, bound by name to whatever runs its graph.

#include "device.cuh"
#include "engine/tensorrt/decoder.h"
#include "engine/tensorrt/kernels/sampling.h"

namespace inflight::gpu_test {

using T = __nv_bfloat16;

// A tensor's place and its sizes in this step.
struct Binding {
  std::string name;
  void* data;
  std::vector<int64_t> sizes;
  bool varies;  // its sizes differ between steps
};

struct DecoderWeights {
  gpu::DecoderShape shape;
  std::vector<Array<T>> matrices, caches;
  std::vector<Array<float>> vectors;
  std::vector<Binding> bindings;
  std::map<std::string, std::vector<const void*>> by_name;  // qkv …: of every layer

  // Random weights, and a cache of `blocks` blocks.
  DecoderWeights(const gpu::DecoderShape& of, int64_t blocks) : shape(of) {
    using namespace gpu::names;
    add_matrix(kEmbedding, kEmbedding, shape.vocab_size, shape.hidden_size, 1.0f);
    add_matrix(kLmHead, kLmHead, shape.vocab_size, shape.hidden_size, spread(shape.hidden_size));
    add_vector(kFinalNorm);
    for (int32_t i = 0; i < shape.layers; ++i) {
      const auto name = [&](const char* of) { return gpu::layer_name(i, of); };
      const int32_t attended = shape.query_heads * shape.head_size;
      add_vector(name(kAttentionNorm));
      add_vector(name(kMlpNorm));
      add_matrix(name(kQkv), kQkv, shape.qkv_size(), shape.hidden_size, spread(shape.hidden_size));
      add_matrix(name(kAttentionOutput), kAttentionOutput, shape.hidden_size, attended, spread(attended));
      add_matrix(name(kGateUp), kGateUp, 2 * shape.intermediate_size, shape.hidden_size, spread(shape.hidden_size));
      add_matrix(name(kDown), kDown, shape.hidden_size, shape.intermediate_size, spread(shape.intermediate_size));
      for (const char* of : {kKeyCache, kValueCache}) {
        caches.push_back(normal<T>(size_t(blocks) * shape.tokens_per_block * shape.kv_heads * shape.head_size, 1.0f,
                                   1000 + caches.size()));
        bindings.push_back({name(of), caches.back().get(), {1}, false});
      }
    }
    std::vector<float> angles(size_t{1} * shape.positions * shape.head_size);
    const int32_t half = shape.head_size / 2;
    for (int32_t p = 0; p < shape.positions; ++p) {
      for (int32_t i = 0; i < half; ++i) {
        const double angle = p * std::pow(500000.0, -double(i) / half);
        angles[size_t{1} * p * shape.head_size + i] = static_cast<float>(std::cos(angle));
        angles[size_t{1} * p * shape.head_size + half + i] = static_cast<float>(std::sin(angle));
      }
    }
    vectors.emplace_back(angles);
    bindings.push_back({kCosSin, vectors.back().get(), {shape.positions, shape.head_size}, false});
  }

 private:
  static float spread(int32_t depth) { return 1.0f / std::sqrt(static_cast<float>(depth)); }
  void add_matrix(const std::string& name, const std::string& kind, int64_t rows, int64_t columns, float scale) {
    matrices.push_back(normal<T>(rows * columns, scale, matrices.size() + 1));
    bindings.push_back({name, matrices.back().get(), {rows, columns}, false});
    by_name[kind].push_back(matrices.back().get());
  }
  void add_vector(const std::string& name) {
    std::vector<float> values(shape.hidden_size);
    for (size_t i = 0; i < values.size(); ++i) values[i] = 0.5f + (mixed(i + vectors.size()) % 1000) * 1e-3f;
    vectors.emplace_back(values);
    bindings.push_back({name, vectors.back().get(), {shape.hidden_size}, false});
  }
};

// A sequence's part of a step: the tokens from position `first` on.
struct Slice {
  std::vector<int32_t> tokens;
  int32_t first;
  std::vector<int32_t> blocks;
};

// Slices of one token, which generate, come first. Every slice samples after its last token.
struct DecoderStep {
  Array<int32_t> tokens, positions, sequences, block_table, lengths, first_queries, longest_chunk, sampled_rows,
      sampled;
  Array<gpu::SamplingRow> sampling;
  Array<T> logits;
  std::vector<Binding> bindings;

  DecoderStep(const std::vector<Slice>& slices, const gpu::DecoderShape& shape, int32_t table_width)
      : DecoderStep(Host(slices, table_width), shape, table_width) {}

 private:
  struct Host {
    std::vector<int32_t> tokens, positions, sequences, block_table, lengths, first_queries{0}, sampled_rows;
    int32_t longest = 1;

    Host(const std::vector<Slice>& slices, int32_t table_width) {
      for (size_t s = 0; s < slices.size(); ++s) {
        const auto count = static_cast<int32_t>(slices[s].tokens.size());
        for (int32_t i = 0; i < count; ++i) {
          tokens.push_back(slices[s].tokens[i]);
          positions.push_back(slices[s].first + i);
          sequences.push_back(static_cast<int32_t>(s));
        }
        block_table.insert(block_table.end(), slices[s].blocks.begin(), slices[s].blocks.end());
        block_table.resize((s + 1) * table_width, 0);
        lengths.push_back(slices[s].first + count);
        sampled_rows.push_back(static_cast<int32_t>(tokens.size()) - 1);
        if (count == 1) continue;
        first_queries.push_back(first_queries.back() + count);
        longest = std::max(longest, count);
      }
    }
  };

  DecoderStep(const Host& host, const gpu::DecoderShape& shape, int32_t table_width)
      : tokens(host.tokens),
        positions(host.positions),
        sequences(host.sequences),
        block_table(host.block_table),
        lengths(host.lengths),
        first_queries(host.first_queries),
        longest_chunk(std::vector<int32_t>(host.longest)),
        sampled_rows(host.sampled_rows),
        sampled(host.sampled_rows.size()),
        sampling(std::vector<gpu::SamplingRow>(host.sampled_rows.size(), {.top_k = 1, .temperature = 1})),
        logits(host.sampled_rows.size() * shape.vocab_size) {
    using namespace gpu::names;
    const auto size = [](const auto& array) { return static_cast<int64_t>(array.size()); };
    bindings = {{kTokens, tokens.get(), {size(tokens)}, true},
                {kPositions, positions.get(), {size(positions)}, true},
                {kSequences, sequences.get(), {size(sequences)}, true},
                {kBlockTable, block_table.get(), {size(lengths), table_width}, true},
                {kLengths, lengths.get(), {size(lengths)}, true},
                {kFirstQueries, first_queries.get(), {size(first_queries)}, true},
                {kLongestChunk, longest_chunk.get(), {size(longest_chunk)}, true},
                {kSampledRows, sampled_rows.get(), {size(sampled_rows)}, true},
                {kSampling, sampling.get(), {size(sampled_rows), sizeof(gpu::SamplingRow) / 4}, true}};
  }
};

}  // namespace inflight::gpu_test
