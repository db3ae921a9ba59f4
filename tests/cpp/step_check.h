#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "common/error.h"
#include "engine/engine.h"

namespace inflight::test {

// Throws Error for a step that no engine could be asked to run: over its limits, a slot that nobody set up, a position
// without a block, a block that one slice writes while another one reads or writes it.
class StepCheck {
 public:
  explicit StepCheck(const EngineInfo& info) : info_(info) {}

  // A step that is rejected leaves block lists behind that are of no use.
  void check(const StepInput& input) {
    readers_.clear();
    writers_.clear();
    for (const SlotSetup& setup : input.setups) set_up(setup);
    std::set<int32_t> slots;
    size_t num_tokens = 0;
    for (const SequenceSlice& slice : input.slices) {
      if (slice.slot < 0 || slice.slot >= info_.max_batch_size) fail(slice, "no such slot");
      if (!slots.insert(slice.slot).second) fail(slice, "twice in a step");
      if (!block_lists_.contains(slice.slot)) fail(slice, "nobody set it up");
      auto& list = block_lists_[slice.slot];
      list.insert(list.end(), slice.new_block_ids.begin(), slice.new_block_ids.end());
      num_tokens += slice.tokens.size();
      check_tokens(slice);
      check_blocks(slice, list);
    }
    if (num_tokens > static_cast<size_t>(info_.max_num_tokens)) {
      throw_error(ErrorCode::kInternal, num_tokens, " tokens in a step of at most ", info_.max_num_tokens);
    }
    for (const auto& [block, writer] : writers_) {
      if (readers_[block] > 1) throw_error(ErrorCode::kInternal, "slot ", writer, " writes shared block ", block);
    }
  }

  // Of a slot, after the step that was checked last.
  const std::vector<int32_t>& block_list(int32_t slot) const { return block_lists_.at(slot); }

 private:
  template <class... What>
  [[noreturn]] static void fail(const SequenceSlice& slice, const What&... what) {
    throw_error(ErrorCode::kInternal, "slot ", slice.slot, ": ", what...);
  }

  void set_up(const SlotSetup& setup) {
    std::vector<int32_t> list;
    if (setup.parent >= 0) {
      const auto& parent = block_lists_.at(setup.parent);
      if (setup.num_parent_blocks > static_cast<int32_t>(parent.size())) {
        throw_error(ErrorCode::kInternal, "slot ", setup.slot, " forks blocks that its parent does not have");
      }
      list.assign(parent.begin(), parent.begin() + setup.num_parent_blocks);
    }
    block_lists_[setup.slot] = std::move(list);
  }

  void check_tokens(const SequenceSlice& slice) const {
    if (slice.tokens.empty()) fail(slice, "no tokens");
    if (slice.num_drafts < 0 || slice.num_drafts >= static_cast<int32_t>(slice.tokens.size())) {
      fail(slice, slice.num_drafts, " drafts among ", slice.tokens.size(), " tokens");
    }
    if (slice.num_drafts > 0 && !slice.samples) fail(slice, "drafts that nothing verifies");
    for (size_t i = 0; i < slice.tokens.size(); ++i) {
      const int32_t token = slice.tokens[i];
      const bool is_previous = token == kPreviousToken && i == 0;
      if (!is_previous && (token < 0 || token >= info_.vocab_size)) fail(slice, "token ", token);
    }
  }

  void check_blocks(const SequenceSlice& slice, const std::vector<int32_t>& list) {
    const int64_t end = slice.past_length + static_cast<int64_t>(slice.tokens.size());
    if (slice.past_length < 0 || end > info_.max_seq_len) fail(slice, "comes to ", end, " tokens");
    const int64_t size = info_.tokens_per_block;
    if (static_cast<int64_t>(list.size()) * size < end) {
      fail(slice, list.size(), " blocks for ", end, " tokens");
    }
    for (int64_t i = 0; i * size < end; ++i) {
      const int32_t block = list[i];
      if (!is_visible(slice, i * size, (i + 1) * size)) continue;
      if (block < 0 || block >= info_.num_blocks) fail(slice, "block ", block, " for tokens from ", i * size);
      ++readers_[block];
      if ((i + 1) * size > slice.past_length) writers_[block] = slice.slot;
    }
  }

  // Whether a token of the slice sees, or is, one of the positions [begin, end).
  bool is_visible(const SequenceSlice& slice, int64_t begin, int64_t end) const {
    if (info_.attention_window == 0 || begin < info_.sink_tokens) return true;
    return end > slice.past_length - info_.attention_window + 1;
  }

  const EngineInfo info_;
  std::map<int32_t, std::vector<int32_t>> block_lists_;  // by slot
  std::map<int32_t, int> readers_;      // slices of the step by block
  std::map<int32_t, int32_t> writers_;  // a slot by block
};

}  // namespace inflight::test
