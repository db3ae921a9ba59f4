#include "engine/cpu/forward.h"

#include <algorithm>
#include <cmath>

#include "common/rounding.h"
#include "engine/cpu/for_each_row.h"

namespace inflight::cpu {
namespace {

// So many that it pays to unpack weights, so few that activations stay in the nearer caches from one layer to the next.
constexpr int64_t kSliceRowsPerThread = 256;

}  // namespace

void ForwardPass::run(const Batch& batch, Sampler& sampler, float* returned_logits, BatchOutput& output) {
  plan_slices(batch);
  prepare_rotations(batch);
  embed(batch);
  for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    for (const Slice& slice : slices_) run_layer(batch, layer, slice);
  }
  output_layer_.run(batch, hidden_.data(), sampler, returned_logits, output);
}

void ForwardPass::run_layer(const Batch& batch, int32_t layer, const Slice& slice) {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t hidden_size = config_.hidden_size, intermediate_size = config_.intermediate_size;
  float* hidden = hidden_.data() + slice.first_row * hidden_size;
  const auto normalize = [&](std::span<const float> weight) {
    return [=, this](int64_t row) {
      operations_.rms_norm(hidden + row * hidden_size, weight.data(), config_.norm_epsilon, hidden_size,
                           normed_.data() + row * hidden_size);
    };
  };

  linear_input_.set(normed_.data(), slice.rows, hidden_size, hidden_size);
  linear_input_.produce(weights.qkv.matrix.layout(), slice.precision, pool_, isa_, normalize(weights.input_layernorm));
  linear(weights.qkv, linear_input_, slice, qkv_.data());
  rotate_and_cache(batch, layer, slice);
  attend(layer, slice);
  linear_input_.set(attention_output_.data(), slice.rows, config_.attention_size(), config_.attention_size());
  linear(weights.dense, linear_input_, slice, hidden, /*accumulate=*/true);

  linear_input_.set(normed_.data(), slice.rows, hidden_size, hidden_size);
  linear_input_.produce(weights.gate_up.matrix.layout(), slice.precision, pool_, isa_,
                        normalize(weights.post_layernorm));
  activated_input_.set(activated_.data(), slice.rows, intermediate_size, intermediate_size);
  const PackedLayout& down = weights.down.matrix.layout();
  if (has_linear_silu_and_multiply(weights.gate_up.matrix.layout(), down, slice.precision, isa_)) {
    linear_silu_and_multiply(weights.gate_up.matrix, weights.gate_up.bias.data(), linear_input_, down, activated_input_,
                             pool_, isa_);
  } else {
    linear(weights.gate_up, linear_input_, slice, gate_up_.data());
    activated_input_.produce(down, slice.precision, pool_, isa_, [&](int64_t row) {
      operations_.silu_and_multiply(gate_up_.data() + row * 2 * intermediate_size, intermediate_size,
                                    activated_.data() + row * intermediate_size);
    });
  }
  linear(weights.down, activated_input_, slice, hidden, /*accumulate=*/true);
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
      max_slice_rows_(std::min<int64_t>(config.build.max_num_tokens, kSliceRowsPerThread * pool.size())),
      linear_input_(max_slice_rows_, std::max(config_.hidden_size, config_.attention_size())),
      activated_input_(max_slice_rows_, config_.intermediate_size),
      output_layer_(config, weights, pool, isa) {
  const size_t rows = config.build.max_num_tokens;
  hidden_ = Buffer<float>(rows * config_.hidden_size);
  cos_ = Buffer<float>(rows * config_.head_size / 2);
  sin_ = Buffer<float>(rows * config_.head_size / 2);
  normed_ = Buffer<float>(max_slice_rows_ * config_.hidden_size);
  qkv_ = Buffer<float>(max_slice_rows_ * config_.qkv_size());
  attention_output_ = Buffer<float>(max_slice_rows_ * config_.attention_size());
  gate_up_ = Buffer<float>(max_slice_rows_ * 2 * config_.intermediate_size);
  activated_ = Buffer<float>(max_slice_rows_ * config_.intermediate_size);
  slices_.reserve(divide_up(config.build.max_num_tokens, max_slice_rows_) + 2 * config.build.max_batch_size);
  attention_tasks_.reserve(rows);
  constexpr int64_t kCacheLine = 64 / sizeof(float);
  const int64_t scratch = attention_scratch_size(std::max(kMaxAttentionRows, group_size_), config_.head_size);
  attention_scratch_size_ = round_up(scratch, kCacheLine);
  attention_scratch_ = Buffer<float>(pool.size() * attention_scratch_size_);
}

// A slice is of prompts or of answers: prompts, which are long, take the way that is faster for many tokens.
void ForwardPass::plan_slices(const Batch& batch) {
  slices_.clear();
  attention_tasks_.clear();
  const int64_t rows = static_cast<int64_t>(batch.rows.size());
  const auto is_prompt = [&](int64_t row) {
    return batch.rows[row].position < batch.sequences[batch.rows[row].sequence].prompt_length;
  };
  for (int64_t first = 0; first < rows;) {
    int64_t end = first + 1;
    while (end < rows && is_prompt(end) == is_prompt(first)) ++end;
    const int64_t num_slices = divide_up(end - first, max_slice_rows_);
    for (int64_t i = 0; i < num_slices; ++i) {
      slices_.push_back(
          plan_slice(batch, first + i * (end - first) / num_slices, first + (i + 1) * (end - first) / num_slices));
      slices_.back().precision = is_prompt(first) ? Precision::kRounded : Precision::kExact;
    }
    first = end;
  }
}

ForwardPass::Slice ForwardPass::plan_slice(const Batch& batch, int64_t first_row, int64_t end_row) {
  const int64_t tokens_per_task = std::max(1, kMaxAttentionRows / group_size_);
  const int64_t first_task = static_cast<int64_t>(attention_tasks_.size());
  for (int64_t row = first_row; row < end_row;) {
    const BatchSequence& sequence = batch.sequences[batch.rows[row].sequence];
    const int64_t end = std::min<int64_t>({row + tokens_per_task, sequence.end_row(), end_row});
    attention_tasks_.push_back({&sequence, static_cast<int32_t>(row), static_cast<int32_t>(end - row)});
    row = end;
  }
  return {.first_row = first_row,
          .rows = end_row - first_row,
          .first_task = first_task,
          .num_tasks = static_cast<int64_t>(attention_tasks_.size()) - first_task};
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

void ForwardPass::linear(const LinearWeights& weights, LinearInput& input, const Slice& slice, float* y,
                         bool accumulate) {
  const LinearOutput output = {y, weights.matrix.rows(), weights.bias.data(), accumulate};
  cpu::linear(weights.matrix, input, output, pool_, isa_, slice.precision);
}

// Normalizes queries and keys where the model does, turns them by their position, and puts keys and
// values into the cache.
void ForwardPass::rotate_and_cache(const Batch& batch, int32_t layer, const Slice& slice) {
  const LayerWeights& weights = weights_.layers[layer];
  const int32_t head_size = config_.head_size;
  const int64_t half = head_size / 2;
  const int32_t tokens_per_block = cache_.shape().tokens_per_block;
  for_each_row(pool_, slice.rows, [&](int64_t row) {
    const BatchRow& batch_row = batch.rows[slice.first_row + row];
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
    const int64_t angles = (slice.first_row + row) * half;
    operations_.rotate(queries, config_.num_attention_heads + config_.num_key_value_heads, cos_.data() + angles,
                       sin_.data() + angles, half);

    const int32_t position = batch_row.position;
    const int32_t block = batch.sequences[batch_row.sequence].block_ids[position / tokens_per_block];
    const int32_t offset = position % tokens_per_block;
    if (!cache_.shape().is_bfloat16) return cache_.write(layer, block, offset, keys, values);
    const int64_t size = int64_t(config_.num_key_value_heads) * head_size;
    auto* halves = reinterpret_cast<uint16_t*>(keys);
    operations_.to_bfloat16(keys, 2 * size, halves);
    cache_.write(layer, block, offset, halves, halves + size);
  });
}

void ForwardPass::attend(int32_t layer, const Slice& slice) {
  const int32_t kv_heads = config_.num_key_value_heads;
  const int64_t group_columns = int64_t(group_size_) * config_.head_size;
  const RowParts parts(slice.rows, pool_);
  const auto first_task = [&](int64_t part) { return slice.first_task + part * slice.num_tasks / parts.count(); };
  const int64_t tasks_per_part = divide_up(slice.num_tasks, parts.count()) * kv_heads;
  for_each_part(pool_, parts, tasks_per_part, [&](int64_t part, int64_t index, int thread) {
    const int64_t attention_task = first_task(part) + index / kv_heads;
    if (attention_task >= first_task(part + 1)) return;
    const AttentionTask& task = attention_tasks_[attention_task];
    const int32_t kv_head = static_cast<int32_t>(index % kv_heads);
    const int64_t row = task.first_row - slice.first_row;
    operations_.attention({
        .queries = qkv_.data() + row * config_.qkv_size() + kv_head * group_columns,
        .output = attention_output_.data() + row * config_.attention_size() + kv_head * group_columns,
        .query_stride = config_.qkv_size(),
        .output_stride = config_.attention_size(),
        .num_tokens = task.num_tokens,
        .heads_per_kv_head = group_size_,
        .head_size = config_.head_size,
        .first_position = task.sequence->past_length + task.first_row - task.sequence->first_row,
        .window = windows_.layers[layer],
        .sink_tokens = windows_.sink_tokens,
        .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_size)),
        .cache = cache_.keys(layer, 0, kv_head),
        .is_bfloat16 = cache_.shape().is_bfloat16,
        .block_stride = cache_.block_stride(),
        .block_ids = task.sequence->block_ids.data(),
        .tokens_per_block = cache_.shape().tokens_per_block,
        .scratch = attention_scratch_.data() + thread * attention_scratch_size_,
    });
  });
}

}  // namespace inflight::cpu
