#include "engine/cpu/forward.h"

#include <algorithm>
#include <cmath>

#include "common/rounding.h"
#include "engine/cpu/for_each_token.h"

namespace inflight::cpu {
namespace {

// So many that it pays to unpack weights, so few that activations stay in the nearer caches from one layer to the next.
constexpr int64_t kStripTokensPerThread = 256;

}  // namespace

void ForwardPass::run(const Batch& batch, Sampler& sampler, float* returned_logits, BatchOutput& output) {
  plan_strips(batch);
  prepare_rotations(batch);
  embed(batch);
  for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    for (const Strip& strip : strips_) run_layer(batch, layer, strip);
  }
  output_layer_.run(batch, hidden_.data(), sampler, returned_logits, output);
}

void ForwardPass::run_layer(const Batch& batch, int32_t layer, const Strip& strip) {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t hidden_size = config_.hidden_size, intermediate_size = config_.intermediate_size;
  float* hidden = hidden_.data() + strip.first_token * hidden_size;
  const auto normalize = [&](std::span<const float> weight) {
    return [=, this](int64_t token) {
      operations_.rms_norm(hidden + token * hidden_size, weight.data(), config_.norm_epsilon, hidden_size,
                           normed_.data() + token * hidden_size);
    };
  };

  linear_input_.set(normed_.data(), strip.num_tokens, hidden_size, hidden_size);
  linear_input_.produce(weights.qkv.matrix.layout(), strip.precision, pool_, isa_, normalize(weights.input_layernorm));
  linear(weights.qkv, linear_input_, strip, qkv_.data());
  rotate_and_cache(batch, layer, strip);
  attend(layer, strip);
  linear_input_.set(attention_output_.data(), strip.num_tokens, config_.attention_size(), config_.attention_size());
  linear(weights.dense, linear_input_, strip, hidden, /*accumulate=*/true);

  linear_input_.set(normed_.data(), strip.num_tokens, hidden_size, hidden_size);
  linear_input_.produce(weights.gate_up.matrix.layout(), strip.precision, pool_, isa_,
                        normalize(weights.post_layernorm));
  activated_input_.set(activated_.data(), strip.num_tokens, intermediate_size, intermediate_size);
  const PackedLayout& down = weights.down.matrix.layout();
  if (has_linear_silu_and_multiply(weights.gate_up.matrix.layout(), down, strip.precision, isa_)) {
    linear_silu_and_multiply(weights.gate_up.matrix, weights.gate_up.bias.data(), linear_input_, down, activated_input_,
                             pool_, isa_);
  } else {
    linear(weights.gate_up, linear_input_, strip, gate_up_.data());
    activated_input_.produce(down, strip.precision, pool_, isa_, [&](int64_t token) {
      operations_.silu_and_multiply(gate_up_.data() + token * 2 * intermediate_size, intermediate_size,
                                    activated_.data() + token * intermediate_size);
    });
  }
  linear(weights.down, activated_input_, strip, hidden, /*accumulate=*/true);
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
      heads_per_kv_head_(config.model.num_attention_heads / config.model.num_key_value_heads),
      max_strip_tokens_(std::min<int64_t>(config.build.max_num_tokens, kStripTokensPerThread * pool.size())),
      linear_input_(max_strip_tokens_, std::max(config_.hidden_size, config_.attention_size())),
      activated_input_(max_strip_tokens_, config_.intermediate_size),
      output_layer_(config, weights, pool, isa) {
  const size_t max_num_tokens = config.build.max_num_tokens;
  hidden_ = Buffer<float>(max_num_tokens * config_.hidden_size);
  cos_ = Buffer<float>(max_num_tokens * config_.head_size / 2);
  sin_ = Buffer<float>(max_num_tokens * config_.head_size / 2);
  normed_ = Buffer<float>(max_strip_tokens_ * config_.hidden_size);
  qkv_ = Buffer<float>(max_strip_tokens_ * config_.qkv_size());
  attention_output_ = Buffer<float>(max_strip_tokens_ * config_.attention_size());
  gate_up_ = Buffer<float>(max_strip_tokens_ * 2 * config_.intermediate_size);
  activated_ = Buffer<float>(max_strip_tokens_ * config_.intermediate_size);
  strips_.reserve(divide_up(config.build.max_num_tokens, max_strip_tokens_) + 2 * config.build.max_batch_size);
  attention_queries_.reserve(max_num_tokens);
  constexpr int64_t kCacheLine = 64 / sizeof(float);
  const int64_t scratch = attention_scratch_size(std::max(kMaxAttentionRows, heads_per_kv_head_), config_.head_size);
  attention_scratch_size_ = round_up(scratch, kCacheLine);
  attention_scratch_ = Buffer<float>(pool.size() * attention_scratch_size_);
}

// A strip is of prompts or of answers: prompts, which are long, take the way that is faster for many tokens.
void ForwardPass::plan_strips(const Batch& batch) {
  strips_.clear();
  attention_queries_.clear();
  const int64_t num_tokens = static_cast<int64_t>(batch.tokens.size());
  const auto is_prompt = [&](int64_t token) {
    return batch.tokens[token].position < batch.slices[batch.tokens[token].slice].prompt_length;
  };
  for (int64_t first = 0; first < num_tokens;) {
    int64_t end = first + 1;
    while (end < num_tokens && is_prompt(end) == is_prompt(first)) ++end;
    const int64_t num_strips = divide_up(end - first, max_strip_tokens_);
    for (int64_t i = 0; i < num_strips; ++i) {
      strips_.push_back(
          plan_strip(batch, first + i * (end - first) / num_strips, first + (i + 1) * (end - first) / num_strips));
      strips_.back().precision = is_prompt(first) ? Precision::kRounded : Precision::kExact;
    }
    first = end;
  }
}

ForwardPass::Strip ForwardPass::plan_strip(const Batch& batch, int64_t first_token, int64_t end_token) {
  const int64_t tokens_per_call = std::max(1, kMaxAttentionRows / heads_per_kv_head_);
  const int64_t first_queries = static_cast<int64_t>(attention_queries_.size());
  for (int64_t token = first_token; token < end_token;) {
    const BatchSlice& slice = batch.slices[batch.tokens[token].slice];
    const int64_t end = std::min<int64_t>({token + tokens_per_call, slice.end_token(), end_token});
    attention_queries_.push_back({&slice, static_cast<int32_t>(token), static_cast<int32_t>(end - token)});
    token = end;
  }
  return {.first_token = first_token,
          .num_tokens = end_token - first_token,
          .first_queries = first_queries,
          .num_queries = static_cast<int64_t>(attention_queries_.size()) - first_queries};
}

void ForwardPass::prepare_rotations(const Batch& batch) {
  const size_t half = config_.head_size / 2;
  for_each_token(pool_, batch.tokens.size(), [&](int64_t token) {
    const auto [id, position, slice] = batch.tokens[token];
    rotary_embedding_.rotation(position, batch.slices[slice].prompt_length, {cos_.data() + token * half, half},
                               {sin_.data() + token * half, half});
  });
}

void ForwardPass::embed(const Batch& batch) {
  for_each_token(pool_, batch.tokens.size(), [&](int64_t token) {
    weights_.vocab_embedding.row(batch.tokens[token].id, hidden_.data() + token * config_.hidden_size);
  });
}

void ForwardPass::linear(const LinearWeights& weights, LinearInput& input, const Strip& strip, float* y,
                         bool accumulate) {
  const LinearOutput output = {y, weights.matrix.rows(), weights.bias.data(), accumulate};
  cpu::linear(weights.matrix, input, output, pool_, isa_, strip.precision);
}

// Normalizes queries and keys where the model does, turns them by their position, and puts keys and
// values into the cache.
void ForwardPass::rotate_and_cache(const Batch& batch, int32_t layer, const Strip& strip) {
  const LayerWeights& weights = weights_.layers[layer];
  const int32_t head_size = config_.head_size;
  const int64_t half = head_size / 2;
  const int32_t tokens_per_block = cache_.shape().tokens_per_block;
  for_each_token(pool_, strip.num_tokens, [&](int64_t token) {
    const BatchToken& batch_token = batch.tokens[strip.first_token + token];
    float* queries = qkv_.data() + token * config_.qkv_size();
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
    const int64_t angles = (strip.first_token + token) * half;
    operations_.rotate(queries, config_.num_attention_heads + config_.num_key_value_heads, cos_.data() + angles,
                       sin_.data() + angles, half);

    const int32_t position = batch_token.position;
    const int32_t block = batch.slices[batch_token.slice].block_ids[position / tokens_per_block];
    const int32_t offset = position % tokens_per_block;
    if (!cache_.shape().is_bfloat16) return cache_.write(layer, block, offset, keys, values);
    const int64_t size = int64_t(config_.num_key_value_heads) * head_size;
    auto* halves = reinterpret_cast<uint16_t*>(keys);
    operations_.to_bfloat16(keys, 2 * size, halves);
    cache_.write(layer, block, offset, halves, halves + size);
  });
}

void ForwardPass::attend(int32_t layer, const Strip& strip) {
  const int32_t kv_heads = config_.num_key_value_heads;
  const int64_t columns_per_kv_head = int64_t(heads_per_kv_head_) * config_.head_size;
  const TokenParts parts(strip.num_tokens, pool_);
  const auto first_queries = [&](int64_t part) {
    return strip.first_queries + part * strip.num_queries / parts.count();
  };
  const int64_t tasks_per_part = divide_up(strip.num_queries, parts.count()) * kv_heads;
  for_each_part(pool_, parts, tasks_per_part, [&](int64_t part, int64_t index, int thread) {
    const int64_t queries_index = first_queries(part) + index / kv_heads;
    if (queries_index >= first_queries(part + 1)) return;
    const AttentionQueries& queries = attention_queries_[queries_index];
    const int32_t kv_head = static_cast<int32_t>(index % kv_heads);
    const int64_t token = queries.first_token - strip.first_token;
    operations_.attention({
        .queries = qkv_.data() + token * config_.qkv_size() + kv_head * columns_per_kv_head,
        .output = attention_output_.data() + token * config_.attention_size() + kv_head * columns_per_kv_head,
        .query_stride = config_.qkv_size(),
        .output_stride = config_.attention_size(),
        .num_tokens = queries.num_tokens,
        .heads_per_kv_head = heads_per_kv_head_,
        .head_size = config_.head_size,
        .first_position = queries.slice->past_length + queries.first_token - queries.slice->first_token,
        .window = windows_.layers[layer],
        .sink_tokens = windows_.sink_tokens,
        .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_size)),
        .cache = cache_.keys(layer, 0, kv_head),
        .is_bfloat16 = cache_.shape().is_bfloat16,
        .block_stride = cache_.block_stride(),
        .block_ids = queries.slice->block_ids.data(),
        .tokens_per_block = cache_.shape().tokens_per_block,
        .scratch = attention_scratch_.data() + thread * attention_scratch_size_,
    });
  });
}

}  // namespace inflight::cpu
