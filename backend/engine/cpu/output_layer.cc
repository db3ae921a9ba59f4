#include "engine/cpu/output_layer.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "engine/cpu/for_each_token.h"
#include "engine/cpu/kernels/linear.h"

namespace inflight::cpu {
namespace {

// Drafts of a small batch share one reading of the weights.
constexpr int32_t kLeastMaxRows = 16;
// Of logits that one step may return: enough rows to make good use of each reading of the weights.
constexpr int64_t kReturnedBytes = int64_t{64} << 20;

}  // namespace

OutputLayer::OutputLayer(const EngineConfig& config, const Weights& weights, ThreadPool& pool, Isa isa)
    : config_(config.model),
      weights_(weights),
      pool_(pool),
      isa_(isa),
      operations_(operations(isa)),
      max_rows_(std::min(config.build.max_num_tokens, std::max(config.build.max_batch_size, kLeastMaxRows))),
      normed_(max_rows_ * config_.hidden_size),
      logits_(max_rows_ * config_.vocab_size),
      linear_input_(static_cast<int64_t>(max_rows_), config_.hidden_size) {
  strip_.reserve(max_rows_);
  results_.reserve(config.build.max_batch_size);
  sampled_.reserve(config.build.max_batch_size);
}

int32_t max_returned_logits(const EngineConfig& config) {
  const int64_t affordable = kReturnedBytes / (int64_t{config.model.vocab_size} * static_cast<int64_t>(sizeof(float)));
  const int64_t least = std::max(config.build.max_batch_size, kLeastMaxRows);
  return static_cast<int32_t>(std::min<int64_t>(config.build.max_num_tokens, std::max(least, affordable)));
}

void OutputLayer::run(const Batch& batch, const float* hidden, Sampler& sampler, float* returned, BatchOutput& output) {
  plan(batch, sampler, output);
  project_returned(hidden, returned);
  sample(batch, sampler, output);
  while (project_next_strip(hidden)) sample(batch, sampler, output);
  drop_rejected(output, returned);
}

// Makes room for all tokens that the slices may sample.
void OutputLayer::plan(const Batch& batch, Sampler& sampler, BatchOutput& output) {
  results_.clear();
  size_t num_tokens = 0, num_top_log_probs = 0;
  for (const BatchSlice& slice : batch.slices) {
    const int32_t num_candidates = sampler.num_candidates(slice.slot);
    if (num_candidates > 0) {
      for (int32_t token = slice.first_token; token < slice.end_token(); ++token) {
        sampler.follow(slice.slot, batch.tokens[token].position, batch.tokens[token].id);
      }
    }
    const int32_t rows = slice.samples ? slice.num_drafts + 1 : 0;
    const SliceOutput result = {.slice = &slice,
                                .first_sampled = static_cast<int64_t>(num_tokens),
                                .tokens_per_row = std::max(num_candidates, 1),
                                .first_top_log_prob = static_cast<int64_t>(num_top_log_probs),
                                .top_log_probs_per_row = sampler.num_top_log_probs(slice.slot),
                                .num_returned = slice.returned_logits == ReturnedLogits::kAll       ? slice.num_tokens
                                                : slice.returned_logits == ReturnedLogits::kSampled ? rows
                                                                                                    : 0,
                                .num_left = rows};
    if (result.num_left == 0 && result.num_returned == 0) continue;
    results_.push_back(result);
    num_tokens += static_cast<size_t>(result.num_left) * result.tokens_per_row;
    num_top_log_probs += static_cast<size_t>(result.num_left) * result.top_log_probs_per_row;
  }
  output.tokens.resize(num_tokens);
  output.top_log_probs.resize(num_top_log_probs);
}

// Logits that are returned are made in their place, and sampled from there.
void OutputLayer::project_returned(const float* hidden, float* returned) {
  sampled_.clear();
  strip_.clear();
  float* strip_logits = returned;
  size_t num_rows = 0;
  for (SliceOutput& result : results_) {
    if (result.num_returned == 0) continue;
    const int32_t end_token = result.slice->end_token();
    for (int32_t token = end_token - result.num_returned; token < end_token; ++token, ++num_rows) {
      if (strip_.size() == max_rows_) {
        project(hidden, strip_logits);
        strip_logits = returned + num_rows * config_.vocab_size;
        strip_.clear();
      }
      strip_.push_back(token);
    }
    if (result.num_left > 0) {
      const float* logits = returned + (num_rows - result.num_left) * config_.vocab_size;
      sampled_.push_back({&result, logits, result.num_left});
    }
  }
  project(hidden, strip_logits);
}

// As many rows as fit of those that are yet to be sampled. False: there are none.
bool OutputLayer::project_next_strip(const float* hidden) {
  sampled_.clear();
  strip_.clear();
  for (SliceOutput& result : results_) {
    const int32_t count = std::min(result.num_left, static_cast<int32_t>(max_rows_ - strip_.size()));
    if (count == 0) continue;
    sampled_.push_back({&result, logits_.data() + strip_.size() * config_.vocab_size, count});
    const int32_t first_token = result.slice->end_token() - result.num_left;
    for (int32_t i = 0; i < count; ++i) strip_.push_back(first_token + i);
  }
  project(hidden, logits_.data());
  return !strip_.empty();
}

// The logits of the strip's tokens.
void OutputLayer::project(const float* hidden, float* logits) {
  if (strip_.empty()) return;
  const int64_t num_tokens = static_cast<int64_t>(strip_.size()), size = config_.hidden_size;
  for_each_token(pool_, num_tokens, [&](int64_t token) {
    operations_.rms_norm(hidden + strip_[token] * size, weights_.final_layernorm.data(), config_.norm_epsilon, size,
                         normed_.data() + token * size);
  });
  linear_input_.set(normed_.data(), num_tokens, size, size);
  linear(weights_.lm_head, linear_input_, {.rows = logits, .row_stride = config_.vocab_size}, pool_, isa_);
}

void OutputLayer::sample(const Batch& batch, Sampler& sampler, BatchOutput& output) {
  pool_.parallel_for(static_cast<int64_t>(sampled_.size()),
                     [&](int64_t index) { sample(sampled_[index], batch, sampler, output); });
}

void OutputLayer::sample(const SampledRows& rows, const Batch& batch, Sampler& sampler, BatchOutput& output) const {
  SliceOutput& result = *rows.result;
  const BatchSlice& slice = *result.slice;
  for (int32_t i = 0; i < rows.count && result.num_left > 0; ++i) {
    const std::span logits(rows.logits + size_t(i) * config_.vocab_size, static_cast<size_t>(config_.vocab_size));
    const int32_t row = result.num_sampled++;
    SampledToken* token = output.tokens.data() + result.first_sampled + row * result.tokens_per_row;
    --result.num_left;
    if (sampler.num_candidates(slice.slot) > 0) {
      sampler.candidates(slice.slot, logits, slice.mask, {token, static_cast<size_t>(result.tokens_per_row)});
    } else {
      const std::span top_log_probs(
          output.top_log_probs.data() + result.first_top_log_prob + row * result.top_log_probs_per_row,
          static_cast<size_t>(result.top_log_probs_per_row));
      *token = sampler.sample(slice.slot, logits, slice.mask, top_log_probs);
      // The next row is that of a draft, which stands in the place of this token.
      if (result.num_left > 0 && batch.tokens[slice.end_token() - result.num_left].id != token->token) {
        result.num_left = 0;
      }
    }
  }
}

// Closes the gaps that rejected drafts have left.
void OutputLayer::drop_rejected(BatchOutput& output, float* returned) const {
  const auto move_down = [](auto begin, int64_t count, auto end) {
    return begin == end ? end + count : std::copy(begin, begin + count, end);
  };
  auto tokens_end = output.tokens.begin();
  auto top_log_probs_end = output.top_log_probs.begin();
  float *logits = returned, *logits_end = returned;
  for (const SliceOutput& result : results_) {
    tokens_end = move_down(output.tokens.begin() + result.first_sampled,
                           int64_t{result.num_sampled} * result.tokens_per_row, tokens_end);
    top_log_probs_end = move_down(output.top_log_probs.begin() + result.first_top_log_prob,
                                  int64_t{result.num_sampled} * result.top_log_probs_per_row, top_log_probs_end);
    const bool returns_all = result.slice->returned_logits == ReturnedLogits::kAll;
    const int32_t num_kept = returns_all ? result.num_returned : std::min(result.num_returned, result.num_sampled);
    logits_end = move_down(logits, int64_t{num_kept} * config_.vocab_size, logits_end);
    logits += int64_t{result.num_returned} * config_.vocab_size;
  }
  output.tokens.resize(tokens_end - output.tokens.begin());
  output.top_log_probs.resize(top_log_probs_end - output.top_log_probs.begin());
  output.num_logits = logits_end - returned;
}

}  // namespace inflight::cpu
