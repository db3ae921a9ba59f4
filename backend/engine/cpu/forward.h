#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/thread_pool.h"
#include "engine/attention_windows.h"
#include "engine/cpu/batch.h"
#include "engine/cpu/cpu_features.h"
#include "engine/cpu/kernels/linear.h"
#include "engine/cpu/kernels/linear_input.h"
#include "engine/cpu/kernels/operations.h"
#include "engine/cpu/kv_cache_storage.h"
#include "engine/cpu/memory.h"
#include "engine/cpu/output_layer.h"
#include "engine/cpu/rope.h"
#include "engine/cpu/weights.h"
#include "engine/engine.h"
#include "engine/model_config.h"
#include "engine/sampler.h"

namespace inflight::cpu {

// The model of the Llama family: from a batch's token ids to sampled tokens. All buffers are made by the
// constructor for the build's largest batch; a batch must not be empty, respect its limits and name valid ids.
class ForwardPass {
 public:
  ForwardPass(const EngineConfig& config, const AttentionWindows& windows, const Weights& weights,
              KvCacheStorage& cache, ThreadPool& pool, Isa isa);

  // returned_logits, output: as OutputLayer::run.
  void run(const Batch& batch, Sampler& sampler, float* returned_logits, BatchOutput& output);

 private:
  // Neighboring tokens of one slice that one call of the attention kernel takes.
  struct AttentionQueries {
    const BatchSlice* slice;
    int32_t first_token;
    int32_t num_tokens;
  };

  // Tokens that pass through a layer together, so that what they leave behind stays in the caches.
  struct Strip {
    int64_t first_token;
    int64_t num_tokens;
    int64_t first_queries;  // in attention_queries_
    int64_t num_queries;
    Precision precision = Precision::kExact;
  };

  void plan_strips(const Batch& batch);
  Strip plan_strip(const Batch& batch, int64_t first_token, int64_t end_token);
  void embed(const Batch& batch);
  void prepare_rotations(const Batch& batch);
  void run_layer(const Batch& batch, int32_t layer, const Strip& strip);
  void rotate_and_cache(const Batch& batch, int32_t layer, const Strip& strip);
  void attend(int32_t layer, const Strip& strip);
  // y = weights · input (+ y)
  void linear(const LinearWeights& weights, LinearInput& input, const Strip& strip, float* y, bool accumulate = false);

  const ModelConfig& config_;
  const AttentionWindows& windows_;
  const Weights& weights_;
  KvCacheStorage& cache_;
  ThreadPool& pool_;
  const Isa isa_;
  const Operations& operations_;
  const RotaryEmbedding rotary_embedding_;
  const int32_t heads_per_kv_head_;  // query heads

  // Activations of the batch's tokens.
  Buffer<float> hidden_;     // [max_num_tokens, hidden]
  Buffer<float> cos_, sin_;  // [max_num_tokens, head_size / 2]

  // Activations of a strip's.
  const int64_t max_strip_tokens_;
  Buffer<float> normed_;            // [max_strip_tokens, hidden]
  Buffer<float> qkv_;               // [max_strip_tokens, (heads + 2 kv_heads) head_size]
  Buffer<float> attention_output_;  // [max_strip_tokens, heads head_size]
  Buffer<float> gate_up_;           // [max_strip_tokens, 2 intermediate]
  Buffer<float> activated_;         // [max_strip_tokens, intermediate]

  LinearInput linear_input_;
  LinearInput activated_input_;
  OutputLayer output_layer_;
  std::vector<Strip> strips_;
  std::vector<AttentionQueries> attention_queries_;
  size_t attention_scratch_size_;
  Buffer<float> attention_scratch_;  // [threads, attention_scratch_size_]
};

}  // namespace inflight::cpu
