#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <vector>

#include "engine/engine.h"
#include "engine/step_message.h"
#include "step_check.h"

namespace inflight::test {

// An engine whose next token is a hash of every token that it reads back from its paged cache, through the
// block ids of the step. A wrong block, a lost token or a wrong position changes all tokens that follow, so
// equality with expected_tokens() proves the scheduler's and the cache's bookkeeping.
//
// As in a transformer, what the cache holds for a token depends on the tokens before it that the token sees. Of
// sampling settings it follows num_candidates and masks. Every step passes StepCheck, and its tokens must be those that
// setups and the steps before gave to the slot.
class PagedEngine final : public Engine {
 public:
  explicit PagedEngine(EngineInfo info)
      : info_(std::move(info)),
        step_check_(info_),
        slots_(info_.max_batch_size),
        cache_(static_cast<size_t>(info_.num_blocks + info_.num_host_blocks) * info_.tokens_per_block, kUnwritten) {}

  const EngineInfo& info() const override { return info_; }

  StepNumber launch(const StepInput& input) override {
    if (before_launch) before_launch(input);
    step_check_.check(input);
    copy(input.copies);
    for (const SlotSetup& setup : input.setups) set_up(setup);
    Output& output = in_flight_.emplace_back();
    try {
      if (before_run) before_run(input);
      for (const SequenceSlice& slice : input.slices) run(slice, output);
    } catch (...) {
      output.failure = std::current_exception();
      fail_slots(input);
    }
    output.message.assign(input);
    return ++steps;
  }

  StepOutput finish() override {
    finished_ = std::move(in_flight_.front());
    in_flight_.pop_front();
    if (finished_.failure) std::rethrow_exception(finished_.failure);
    try {
      if (before_finish) before_finish(finished_.message.input());
    } catch (...) {
      fail_slots(finished_.message.input());
      throw;
    }
    return {.tokens = finished_.tokens, .logits = finished_.logits, .failures = finished_.failures};
  }

  bool is_copied(StepNumber step) override { return !delays_copy || !delays_copy(step); }

  // What a request with this prompt gets when it runs alone and meets no end id. window and sink_tokens: of EngineInfo.
  static std::vector<int32_t> expected_tokens(std::vector<int32_t> tokens, int32_t count, int32_t vocab_size,
                                              int32_t window = 0, int32_t sink_tokens = 0) {
    std::vector<uint64_t> entries;
    std::vector<int32_t> generated;
    while (true) {
      for (size_t i = entries.size(); i < tokens.size(); ++i) {
        entries.push_back(entry(tokens[i], i, window, sink_tokens, [&](int64_t j) { return entries[j]; }));
      }
      if (static_cast<int32_t>(generated.size()) == count) return generated;
      generated.push_back(next_token(entries.back(), vocab_size));
      tokens.push_back(generated.back());
    }
  }

  // What a slot with num_candidates gets when its last token's cache entry is `last`.
  static std::vector<SampledToken> candidates(int32_t slot, uint64_t last, int32_t count, int32_t vocab_size) {
    std::vector<SampledToken> best;
    for (int32_t i = 0; i < count; ++i) {
      const float log_prob = -0.25f * static_cast<float>(i + 1) - 1e-3f * static_cast<float>(last % 97);
      best.push_back({slot, (next_token(last, vocab_size) + i) % vocab_size, log_prob});
    }
    return best;
  }

  // They may throw.
  std::function<void(const StepInput&)> before_launch;  // by launch(): nothing of the step takes effect
  std::function<void(const StepInput&)> before_run;     // by launch(): the step fails and computes nothing
  std::function<void(const StepInput&)> before_finish;  // by finish(): the step fails
  std::function<bool(StepNumber)> delays_copy;  // asked by is_copied()
  std::function<void(const SequenceSlice&, std::vector<SampledToken>&)> change_candidates;  // of one beam
  std::atomic<uint64_t> steps{0};

 private:
  static constexpr uint64_t kUnwritten = 0;

  struct Output {
    StepMessage message;
    std::vector<SampledToken> tokens;
    std::vector<float> logits;
    std::vector<SlotFailure> failures;
    std::exception_ptr failure;
  };

  struct Slot {
    int32_t prompt_length = 0;
    int32_t num_candidates = 0;
    std::vector<int32_t> tokens = {};  // prompt, then generated
    bool has_failed = false;
  };

  static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ (value + 1)) * 0xff51afd7ed558ccd;
    return hash ^ (hash >> 33);
  }

  // The cache entry of a token at `position`, from those of the positions that it sees.
  template <class EntryAt>
  static uint64_t entry(int32_t token, int64_t position, int32_t window, int32_t sink_tokens, EntryAt entry_at) {
    uint64_t seen = 0x9e3779b97f4a7c15;
    const int64_t begin = window == 0 ? 0 : std::max<int64_t>(position - window + 1, 0);
    for (int64_t i = 0; i < std::min<int64_t>(begin, sink_tokens); ++i) seen = mix(seen, entry_at(i));
    for (int64_t i = begin; i < position; ++i) seen = mix(seen, entry_at(i));
    return mix(seen, token) | 1;  // not kUnwritten
  }

  static int32_t next_token(uint64_t last, int32_t vocab_size) {
    return static_cast<int32_t>((last >> 1) % static_cast<uint64_t>(vocab_size));
  }

  uint64_t& at(const SequenceSlice& slice, int64_t position) {
    const int32_t block = step_check_.block_list(slice.slot)[position / info_.tokens_per_block];
    return cache_.at(static_cast<size_t>(block) * info_.tokens_per_block + position % info_.tokens_per_block);
  }

  void fail_slots(const StepInput& input) {
    for (const SequenceSlice& slice : input.slices) slots_[slice.slot].has_failed = true;
  }

  void copy(std::span<const BlockCopy> copies) {
    const size_t size = info_.tokens_per_block;
    for (const BlockCopy& copy : copies) {
      const int32_t num_blocks = info_.num_blocks + info_.num_host_blocks;
      if (std::min(copy.source, copy.destination) < 0 || std::max(copy.source, copy.destination) >= num_blocks) {
        throw_error(ErrorCode::kInternal, "copy of block ", copy.source, " to ", copy.destination);
      }
      std::copy_n(cache_.begin() + copy.source * size, size, cache_.begin() + copy.destination * size);
    }
  }

  void set_up(const SlotSetup& setup) {
    Slot& slot = slots_[setup.slot];
    if (setup.parent >= 0) {
      slot = slots_[setup.parent];
      return;
    }
    slot = {static_cast<int32_t>(setup.prompt.size()),
            setup.sampling.num_candidates,
            {setup.prompt.begin(), setup.prompt.end()}};
    slot.tokens.insert(slot.tokens.end(), setup.generated.begin(), setup.generated.end());
  }

  void run(const SequenceSlice& given, Output& output) {
    SequenceSlice slice = given;
    Slot& slot = slots_[slice.slot];
    if (slot.has_failed) {
      output.failures.push_back({slice.slot, Error(ErrorCode::kInternal, "an earlier step of the slot failed")});
      return;
    }
    // It goes on where its last sampled token stands, however many drafts were accepted.
    if (slice.tokens.front() == kPreviousToken) slice.past_length = static_cast<int32_t>(slot.tokens.size()) - 1;
    const int32_t num_tokens = static_cast<int32_t>(slice.tokens.size());
    const int32_t first_sampling = slice.samples ? num_tokens - 1 - slice.num_drafts : num_tokens;
    bool is_sampling = slice.samples;  // until a draft is rejected
    for (int32_t i = 0; i < num_tokens; ++i) {
      const int64_t position = slice.past_length + i;
      const int32_t token = slice.tokens[i] == kPreviousToken ? slot.tokens.back() : slice.tokens[i];
      if (i <= first_sampling) check_history(slice, slot, token, position);
      at(slice, position) = entry(token, position, info_.attention_window, info_.sink_tokens, [&](int64_t j) {
        if (at(slice, j) == kUnwritten) throw_error(ErrorCode::kInternal, "position ", j, " was never written");
        return at(slice, j);
      });
      const uint64_t last = at(slice, position);
      if (slice.returned_logits == ReturnedLogits::kAll) add_logits(last, output.logits);
      if (i < first_sampling || !is_sampling) continue;
      if (slot.num_candidates > 0) {
        auto best = candidates(slice.slot, last, slot.num_candidates, info_.vocab_size);
        if (change_candidates) change_candidates(slice, best);
        output.tokens.insert(output.tokens.end(), best.begin(), best.end());
        continue;
      }
      const int32_t sampled = allowed(next_token(last, info_.vocab_size), slice);
      output.tokens.push_back({slice.slot, sampled, -1.0f});
      if (slice.returned_logits == ReturnedLogits::kSampled) add_logits(last, output.logits);
      slot.tokens.push_back(sampled);
      is_sampling = i + 1 < num_tokens && slice.tokens[i + 1] == sampled;
    }
  }

  // A beam goes on with any of its candidates; every other slot only with what it was given.
  void check_history(const SequenceSlice& slice, Slot& slot, int32_t token, int64_t position) const {
    if (slot.num_candidates > 0 && position == static_cast<int64_t>(slot.tokens.size())) slot.tokens.push_back(token);
    if (position >= static_cast<int64_t>(slot.tokens.size()) || slot.tokens[position] != token) {
      throw_error(ErrorCode::kInternal, "slot ", slice.slot, ": token ", token, " at position ", position,
                  " is not its sequence's");
    }
    if (slice.samples && position + 1 + slice.num_drafts == slice.past_length + int64_t(slice.tokens.size()) &&
        position + 1 < slot.prompt_length) {
      throw_error(ErrorCode::kInternal, "slot ", slice.slot, " samples inside its prompt");
    }
  }

  // The token, or the next one that the slice's mask allows.
  int32_t allowed(int32_t token, const SequenceSlice& slice) const {
    const std::span<const uint32_t> mask = slice.mask;
    if (mask.empty()) return token;
    for (int32_t i = 0; i < info_.vocab_size; ++i) {
      const int32_t candidate = (token + i) % info_.vocab_size;
      if (mask[candidate / 32] >> (candidate % 32) & 1) return candidate;
    }
    throw_error(ErrorCode::kInternal, "slot ", slice.slot, ": its mask allows nothing");
  }

  // One row: 1 at the next token.
  void add_logits(uint64_t last, std::vector<float>& logits) const {
    logits.resize(logits.size() + info_.vocab_size, 0.0f);
    logits[logits.size() - info_.vocab_size + next_token(last, info_.vocab_size)] = 1.0f;
  }

  EngineInfo info_;
  StepCheck step_check_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> cache_;  // an entry a token, 0: never written
  std::deque<Output> in_flight_;
  Output finished_;
};

}  // namespace inflight::test
