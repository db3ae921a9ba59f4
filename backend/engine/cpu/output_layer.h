#pragma once

#include <cstdint>
#include <vector>

#include "common/thread_pool.h"
#include "engine/cpu/batch.h"
#include "engine/cpu/cpu_features.h"
#include "engine/cpu/kernels/linear_input.h"
#include "engine/cpu/kernels/operations.h"
#include "engine/cpu/memory.h"
#include "engine/cpu/weights.h"
#include "engine/engine.h"
#include "engine/model_config.h"
#include "engine/sampler.h"

namespace inflight::cpu {

// What a batch gave, as StepOutput has it; kept from step to step for its memory.
struct BatchOutput {
  std::vector<SampledToken> tokens;
  std::vector<TokenLogProb> top_log_probs;
  int64_t num_logits = 0;  // floats
};

// EngineInfo::max_returned_logits: at least max_batch_size, at most max_num_tokens, 64 MiB between them.
int32_t max_returned_logits(const EngineConfig& config);

// The model's end, from hidden states to tokens: final norm, output projection, sampling, verification of drafts, and
// the logits that slices ask for. Only rows whose logits somebody needs are projected, each once, in strips of
// a bounded size.
class OutputLayer {
 public:
  OutputLayer(const EngineConfig& config, const Weights& weights, ThreadPool& pool, Isa isa);

  // hidden: the last layer's states, [batch.tokens.size(), hidden]. returned: where the logits that slices ask for go,
  // [max_returned_logits, vocab].
  void run(const Batch& batch, const float* hidden, Sampler& sampler, float* returned, BatchOutput& output);

 private:
  // What a slice that samples or returns logits gives.
  struct SliceOutput {
    const BatchSlice* slice;
    int64_t first_sampled;       // in BatchOutput::tokens, where every row that may be sampled has room
    int32_t tokens_per_row;      // 1, or num_candidates
    int64_t first_top_log_prob;  // in BatchOutput::top_log_probs, likewise
    int32_t top_log_probs_per_row;
    int32_t num_returned;        // rows of StepOutput::logits
    int32_t num_left;            // the slice's last rows, yet to be sampled; 0 after a draft that was rejected
    int32_t num_sampled = 0;     // rows
  };
  // Neighboring rows of one slice with their logits, to be sampled one after another.
  struct SampledRows {
    SliceOutput* result;
    const float* logits;  // [count, vocab]
    int32_t count;
  };

  void plan(const Batch& batch, Sampler& sampler, BatchOutput& output);
  void project_returned(const float* hidden, float* returned);
  bool project_next_strip(const float* hidden);
  void project(const float* hidden, float* logits);
  void sample(const Batch& batch, Sampler& sampler, BatchOutput& output);
  void sample(const SampledRows& rows, const Batch& batch, Sampler& sampler, BatchOutput& output) const;
  void drop_rejected(BatchOutput& output, float* returned) const;

  const ModelConfig& config_;
  const Weights& weights_;
  ThreadPool& pool_;
  const Isa isa_;
  const Operations& operations_;
  const size_t max_rows_;  // in one strip

  Buffer<float> normed_;  // [max_rows, hidden]
  Buffer<float> logits_;  // [max_rows, vocab]
  LinearInput linear_input_;

  std::vector<SliceOutput> results_;  // of the running step
  std::vector<int32_t> strip_;        // tokens of the batch that are projected next
  std::vector<SampledRows> sampled_;  // rows whose logits are there
};

}  // namespace inflight::cpu
