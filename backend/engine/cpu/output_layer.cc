#include "engine/cpu/output_layer.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "engine/cpu/for_each_row.h"
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
  group_.reserve(max_rows_);
  slices_.reserve(config.build.max_batch_size);
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
  while (project_next_group(hidden)) sample(batch, sampler, output);
  drop_rejected(output, returned);
}

// Makes room for all tokens that the slices may sample.
void OutputLayer::plan(const Batch& batch, Sampler& sampler, BatchOutput& output) {
  slices_.clear();
  size_t num_tokens = 0, num_top_log_probs = 0;
  for (const BatchSequence& sequence : batch.sequences) {
    const int32_t num_candidates = sampler.num_candidates(sequence.slot);
    if (num_candidates > 0) {
      for (int32_t row = sequence.first_row; row < sequence.end_row(); ++row) {
        sampler.follow(sequence.slot, batch.rows[row].position, batch.rows[row].token);
      }
    }
    const int32_t rows = sequence.samples ? sequence.num_drafts + 1 : 0;
    const Slice slice = {.sequence = &sequence,
                         .first_token = static_cast<int64_t>(num_tokens),
                         .tokens_per_row = std::max(num_candidates, 1),
                         .first_top_log_prob = static_cast<int64_t>(num_top_log_probs),
                         .top_log_probs_per_row = sampler.num_top_log_probs(sequence.slot),
                         .num_returned = sequence.returned_logits == ReturnedLogits::kAll       ? sequence.num_tokens
                                         : sequence.returned_logits == ReturnedLogits::kSampled ? rows
                                                                                                : 0,
                         .num_left = rows};
    if (slice.num_left == 0 && slice.num_returned == 0) continue;
    slices_.push_back(slice);
    num_tokens += static_cast<size_t>(slice.num_left) * slice.tokens_per_row;
    num_top_log_probs += static_cast<size_t>(slice.num_left) * slice.top_log_probs_per_row;
  }
  output.tokens.resize(num_tokens);
  output.top_log_probs.resize(num_top_log_probs);
}

// Logits that are returned are made in their place, and sampled from there.
void OutputLayer::project_returned(const float* hidden, float* returned) {
  sampled_.clear();
  group_.clear();
  float* group_logits = returned;
  size_t num_rows = 0;
  for (Slice& slice : slices_) {
    if (slice.num_returned == 0) continue;
    const int32_t end_row = slice.sequence->end_row();
    for (int32_t row = end_row - slice.num_returned; row < end_row; ++row, ++num_rows) {
      if (group_.size() == max_rows_) {
        project(hidden, group_logits);
        group_logits = returned + num_rows * config_.vocab_size;
        group_.clear();
      }
      group_.push_back(row);
    }
    if (slice.num_left > 0) {
      const float* logits = returned + (num_rows - slice.num_left) * config_.vocab_size;
      sampled_.push_back({&slice, logits, slice.num_left});
    }
  }
  project(hidden, group_logits);
}

// As many rows as fit of those that are yet to be sampled. False: there are none.
bool OutputLayer::project_next_group(const float* hidden) {
  sampled_.clear();
  group_.clear();
  for (Slice& slice : slices_) {
    const int32_t count = std::min(slice.num_left, static_cast<int32_t>(max_rows_ - group_.size()));
    if (count == 0) continue;
    sampled_.push_back({&slice, logits_.data() + group_.size() * config_.vocab_size, count});
    const int32_t first_row = slice.sequence->end_row() - slice.num_left;
    for (int32_t i = 0; i < count; ++i) group_.push_back(first_row + i);
  }
  project(hidden, logits_.data());
  return !group_.empty();
}

// The logits of the group's rows.
void OutputLayer::project(const float* hidden, float* logits) {
  if (group_.empty()) return;
  const int64_t rows = static_cast<int64_t>(group_.size()), size = config_.hidden_size;
  for_each_row(pool_, rows, [&](int64_t row) {
    operations_.rms_norm(hidden + group_[row] * size, weights_.final_layernorm.data(), config_.norm_epsilon, size,
                         normed_.data() + row * size);
  });
  linear_input_.set(normed_.data(), rows, size, size);
  linear(weights_.lm_head, linear_input_, {.rows = logits, .row_stride = config_.vocab_size}, pool_, isa_);
}

void OutputLayer::sample(const Batch& batch, Sampler& sampler, BatchOutput& output) {
  pool_.parallel_for(static_cast<int64_t>(sampled_.size()),
                     [&](int64_t index) { sample(sampled_[index], batch, sampler, output); });
}

void OutputLayer::sample(const SampledRows& rows, const Batch& batch, Sampler& sampler, BatchOutput& output) const {
  Slice& slice = *rows.slice;
  const BatchSequence& sequence = *slice.sequence;
  for (int32_t i = 0; i < rows.count && slice.num_left > 0; ++i) {
    const std::span logits(rows.logits + size_t(i) * config_.vocab_size, static_cast<size_t>(config_.vocab_size));
    const int32_t row = slice.num_sampled++;
    SampledToken* token = output.tokens.data() + slice.first_token + row * slice.tokens_per_row;
    --slice.num_left;
    if (sampler.num_candidates(sequence.slot) > 0) {
      sampler.candidates(sequence.slot, logits, sequence.mask, {token, static_cast<size_t>(slice.tokens_per_row)});
    } else {
      const std::span top_log_probs(
          output.top_log_probs.data() + slice.first_top_log_prob + row * slice.top_log_probs_per_row,
          static_cast<size_t>(slice.top_log_probs_per_row));
      *token = sampler.sample(sequence.slot, logits, sequence.mask, top_log_probs);
      // The next row is that of a draft, which stands in the place of this token.
      if (slice.num_left > 0 && batch.rows[sequence.end_row() - slice.num_left].token != token->token) {
        slice.num_left = 0;
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
  for (const Slice& slice : slices_) {
    tokens_end = move_down(output.tokens.begin() + slice.first_token, int64_t{slice.num_sampled} * slice.tokens_per_row,
                           tokens_end);
    top_log_probs_end = move_down(output.top_log_probs.begin() + slice.first_top_log_prob,
                                  int64_t{slice.num_sampled} * slice.top_log_probs_per_row, top_log_probs_end);
    const bool returns_all = slice.sequence->returned_logits == ReturnedLogits::kAll;
    const int32_t num_kept = returns_all ? slice.num_returned : std::min(slice.num_returned, slice.num_sampled);
    logits_end = move_down(logits, int64_t{num_kept} * config_.vocab_size, logits_end);
    logits += int64_t{slice.num_returned} * config_.vocab_size;
  }
  output.tokens.resize(tokens_end - output.tokens.begin());
  output.top_log_probs.resize(top_log_probs_end - output.top_log_probs.begin());
  output.num_logits = logits_end - returned;
}

}  // namespace inflight::cpu
