#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "engine/engine.h"

namespace inflight::test {

// An engine whose next token is a hash of every token that it reads back from its paged cache, through the
// block ids of the step. A wrong block, a lost token or a wrong position changes all tokens that follow, so
// equality with expected_tokens() proves the scheduler's and the cache's bookkeeping.
class PagedEngine final : public Engine {
 public:
  explicit PagedEngine(EngineInfo info)
      : info_(std::move(info)), cache_(static_cast<size_t>(info_.num_blocks) * info_.tokens_per_block, -1) {}

  const EngineInfo& info() const override { return info_; }

  void configure(int32_t slot, const SamplingConfig&, std::span<const int32_t> prompt,
                 std::span<const int32_t>) override {
    if (slot < 0 || slot >= info_.max_batch_size) throw_error(ErrorCode::kInternal, "slot ", slot);
    prompt_length_[slot] = static_cast<int32_t>(prompt.size());
  }

  StepHandle submit(const StepInput& input) override {
    output_ = {};
    int64_t num_tokens = 0;
    std::map<int32_t, int> slots, blocks;
    for (const SequenceSlice& slice : input.sequences) {
      num_tokens += slice.tokens.size();
      if (slots[slice.slot]++ > 0) throw_error(ErrorCode::kInternal, "slot ", slice.slot, " twice in a step");
      for (int32_t block : slice.block_ids) {
        if (blocks[block]++ > 0) throw_error(ErrorCode::kInternal, "block ", block, " twice in a step");
      }
      run(slice);
    }
    if (num_tokens > info_.max_num_tokens) throw_error(ErrorCode::kInternal, num_tokens, " tokens in a step");
    if (before_wait) before_wait(input);
    ++steps;
    return steps;
  }

  StepOutput wait(StepHandle) override { return std::move(output_); }
  CopyHandle copy_blocks(std::span<const BlockCopy>) override { return 0; }
  bool is_copied(CopyHandle) const override { return true; }

  // What a request with this prompt gets when it runs alone and meets no end id.
  static std::vector<int32_t> expected_tokens(std::vector<int32_t> tokens, int32_t count, int32_t vocab_size) {
    std::vector<int32_t> generated;
    for (int32_t i = 0; i < count; ++i) {
      uint64_t hash = kSeed;
      for (int32_t token : tokens) hash = mix(hash, token);
      generated.push_back(static_cast<int32_t>(hash % vocab_size));
      tokens.push_back(generated.back());
    }
    return generated;
  }

  std::function<void(const StepInput&)> before_wait;  // may throw: a step that fails
  std::atomic<uint64_t> steps{0};

 private:
  static constexpr uint64_t kSeed = 0x9e3779b97f4a7c15;
  static uint64_t mix(uint64_t hash, int32_t token) {
    hash = (hash ^ static_cast<uint64_t>(token + 1)) * 0xff51afd7ed558ccd;
    return hash ^ (hash >> 33);
  }

  int32_t& at(const SequenceSlice& slice, int64_t position) {
    const size_t index = position / info_.tokens_per_block;
    if (index >= slice.block_ids.size()) throw_error(ErrorCode::kInternal, "position ", position, " has no block");
    return cache_.at(static_cast<size_t>(slice.block_ids[index]) * info_.tokens_per_block +
                     position % info_.tokens_per_block);
  }

  void run(const SequenceSlice& slice) {
    const int64_t end = slice.past_length + slice.tokens.size();
    for (int64_t i = slice.past_length; i < end; ++i) at(slice, i) = slice.tokens[i - slice.past_length];
    if (!slice.samples) return;
    if (end < prompt_length_.at(slice.slot)) throw_error(ErrorCode::kInternal, "sampled inside the prompt");
    uint64_t hash = kSeed;
    for (int64_t i = 0; i < end; ++i) hash = mix(hash, at(slice, i));
    output_.tokens.push_back({slice.slot, static_cast<int32_t>(hash % info_.vocab_size), -1.0f});
  }

  EngineInfo info_;
  std::vector<int32_t> cache_;
  std::map<int32_t, int32_t> prompt_length_;
  StepOutput output_;
};

}  // namespace inflight::test
