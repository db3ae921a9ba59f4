#include "engine/cpu/forward.h"

#include <algorithm>
#include <cmath>

#include "common/rounding.h"
#include "engine/cpu/for_each_row.h"
#include "engine/cpu/kernels/linear.h"

namespace inflight::cpu {

StepOutput ForwardPass::run(const Batch& batch, Sampler& sampler) {
  const int64_t rows = static_cast<int64_t>(batch.rows.size());
  plan_attention(batch);
  prepare_rotations(batch);
  embed(batch);
  for (int32_t i = 0; i < config_.num_hidden_layers; ++i) {
    const LayerWeights& layer = weights_.layers[i];

    normalize(hidden_.data(), layer.input_layernorm, normed_.data(), rows);
    linear(layer.qkv, normed_.data(), qkv_.data(), rows);
    rotate_and_cache(batch, i);
    attend(i);
    linear(layer.dense, attention_output_.data(), hidden_.data(), rows, /*accumulate=*/true);

    normalize(hidden_.data(), layer.post_layernorm, normed_.data(), rows);
    linear(layer.gate_up, normed_.data(), gate_up_.data(), rows);
    silu_and_multiply(rows);
    linear(layer.down, activated_.data(), hidden_.data(), rows, /*accumulate=*/true);
  }
  return output_layer_.run(batch, hidden_.data(), sampler);
}

ForwardPass::ForwardPass(const EngineConfig& config, const AttentionWindows& windows, const Weights& weights,
                         KvCacheStorage& cache, ThreadPool& pool, Isa isa)
    : config_(config.model),
      windows_(windows),
      weights_(weights),
      cache_(cache),
      pool_(pool),
      isa_(isa),
      operations_(operations(isa)),
      rotary_embedding_(config.model),
      group_size_(config.model.num_attention_heads / config.model.num_key_value_heads),
      linear_input_(config.build.max_num_tokens,
                    std::max({config_.hidden_size, config_.attention_size(), config_.intermediate_size})),
      output_layer_(config, weights, pool, isa) {
  const size_t rows = config.build.max_num_tokens;
  hidden_ = Buffer<float>(rows * config_.hidden_size);
  normed_ = Buffer<float>(rows * config_.hidden_size);
  qkv_ = Buffer<float>(rows * config_.qkv_size());
  attention_output_ = Buffer<float>(rows * config_.attention_size());
  gate_up_ = Buffer<float>(rows * 2 * config_.intermediate_size);
  activated_ = Buffer<float>(rows * config_.intermediate_size);
  cos_ = Buffer<float>(rows * config_.head_size / 2);
  sin_ = Buffer<float>(rows * config_.head_size / 2);
  attention_tasks_.reserve(rows);
  constexpr int64_t kCacheLine = 64 / sizeof(float);
  const int64_t scratch = attention_scratch_size(std::max(kMaxAttentionRows, group_size_), config_.head_size);
  attention_scratch_size_ = round_up(scratch, kCacheLine);
  attention_scratch_ = Buffer<float>(pool.size() * attention_scratch_size_);
}

void ForwardPass::plan_attention(const Batch& batch) {
  const int32_t tokens_per_task = std::max(1, kMaxAttentionRows / group_size_);
  attention_tasks_.clear();
  for (const BatchSequence& sequence : batch.sequences) {
    for (int32_t first = 0; first < sequence.num_tokens; first += tokens_per_task) {
      attention_tasks_.push_back({&sequence, first, std::min(tokens_per_task, sequence.num_tokens - first)});
    }
  }
}

void ForwardPass::prepare_rotations(const Batch& batch) {
  const size_t half = config_.head_size / 2;
  for_each_row(pool_, batch.rows.size(), [&](int64_t row) {
    const auto [token, position, sequence] = batch.rows[row];
    rotary_embedding_.rotation(position, batch.sequences[sequence].prompt_length, {cos_.data() + row * half, half},
                               {sin_.data() + row * half, half});
  });
}

void ForwardPass::embed(const Batch& batch) {
  for_each_row(pool_, batch.rows.size(), [&](int64_t row) {
    weights_.vocab_embedding.row(batch.rows[row].token, hidden_.data() + row * config_.hidden_size);
  });
}

void ForwardPass::normalize(const float* x, std::span<const float> weight, float* y, int64_t rows) {
  const int64_t size = static_cast<int64_t>(weight.size());
  for_each_row(pool_, rows, [&](int64_t row) {
    operations_.rms_norm(x + row * size, weight.data(), config_.norm_epsilon, size, y + row * size);
  });
}

void ForwardPass::linear(const LinearWeights& weights, const float* x, float* y, int64_t rows, bool accumulate) {
  const PackedMatrix& matrix = weights.matrix;
  linear_input_.set(x, rows, matrix.columns(), matrix.columns());
  cpu::linear(matrix, linear_input_, {y, matrix.rows(), weights.bias.data(), accumulate}, pool_, isa_);
}

// Normalizes queries and keys where the model does, turns them by their position, and puts keys and
// values into the cache.
void ForwardPass::rotate_and_cache(const Batch& batch, int32_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  const int32_t head_size = config_.head_size;
  const int64_t half = head_size / 2;
  const int32_t tokens_per_block = cache_.shape().tokens_per_block;
  for_each_row(pool_, batch.rows.size(), [&](int64_t row) {
    float* queries = qkv_.data() + row * config_.qkv_size();
    float* keys = queries + config_.attention_size();
    const float* values = keys + config_.num_key_value_heads * head_size;

    if (config_.qk_norm) {
      for (float* head = queries; head < keys; head += head_size) {
        operations_.rms_norm(head, weights.q_layernorm.data(), config_.norm_epsilon, head_size, head);
      }
      for (float* head = keys; head < values; head += head_size) {
        operations_.rms_norm(head, weights.k_layernorm.data(), config_.norm_epsilon, head_size, head);
      }
    }
    operations_.rotate(queries, config_.num_attention_heads + config_.num_key_value_heads, cos_.data() + row * half,
                       sin_.data() + row * half, half);

    const int32_t position = batch.rows[row].position;
    const int32_t block = batch.sequences[batch.rows[row].sequence].block_ids[position / tokens_per_block];
    cache_.write(layer, block, position % tokens_per_block, keys, values);
  });
}

void ForwardPass::attend(int32_t layer) {
  const int32_t kv_heads = config_.num_key_value_heads;
  const int64_t group_columns = int64_t(group_size_) * config_.head_size;
  pool_.parallel_for(static_cast<int64_t>(attention_tasks_.size()) * kv_heads, [&](int64_t index, int thread) {
    const AttentionTask& task = attention_tasks_[index / kv_heads];
    const int32_t kv_head = static_cast<int32_t>(index % kv_heads);
    const int64_t row = task.sequence->first_row + task.first_token;
    operations_.attention({
        .queries = qkv_.data() + row * config_.qkv_size() + kv_head * group_columns,
        .output = attention_output_.data() + row * config_.attention_size() + kv_head * group_columns,
        .query_stride = config_.qkv_size(),
        .output_stride = config_.attention_size(),
        .num_tokens = task.num_tokens,
        .group_size = group_size_,
        .head_size = config_.head_size,
        .first_position = task.sequence->past_length + task.first_token,
        .window = windows_.layers[layer],
        .sink_tokens = windows_.sink_tokens,
        .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_size)),
        .cache = cache_.keys(layer, 0, kv_head),
        .block_stride = cache_.block_stride(),
        .block_ids = task.sequence->block_ids.data(),
        .tokens_per_block = cache_.shape().tokens_per_block,
        .scratch = attention_scratch_.data() + thread * attention_scratch_size_,
    });
  });
}

void ForwardPass::silu_and_multiply(int64_t rows) {
  const int64_t size = config_.intermediate_size;
  for_each_row(pool_, rows, [&](int64_t row) {
    operations_.silu_and_multiply(gate_up_.data() + row * 2 * size, size, activated_.data() + row * size);
  });
}

}  // namespace inflight::cpu
