#include "engine/step_check.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "common/rounding.h"

namespace inflight {
namespace {

template <class... Args>
[[noreturn]] void fail(const Args&... message) {
  throw_error(ErrorCode::kInvalidArgument, message...);
}

template <class... Args>
[[noreturn]] void fail(const SequenceSlice& slice, const Args&... message) {
  fail("slot ", slice.slot, ": ", message...);
}

}  // namespace

StepCheck::StepCheck(const EngineInfo& info) : info_(info), slots_(info.max_batch_size) {}

void StepCheck::configure(int32_t slot, const SamplingConfig& config) {
  if (slot < 0 || slot >= info_.max_batch_size) {
    fail("slot is ", slot, "; this engine has ", info_.max_batch_size, " slots");
  }
  slots_[slot].has_candidates = config.num_candidates > 0;
}

void StepCheck::check(const StepInput& input) {
  if (input.sequences.size() > static_cast<size_t>(info_.max_batch_size)) {
    fail("a step of ", input.sequences.size(), " sequences; this engine takes ", info_.max_batch_size);
  }
  ++num_steps_;
  size_t num_tokens = 0;
  int64_t num_logits = 0;
  for (const SequenceSlice& slice : input.sequences) {
    check_extent(slice);
    check_tokens(slice);
    check_blocks(slice);
    check_sampling(slice, input);
    num_tokens += slice.tokens.size();
    num_logits += num_returned_logits(slice);
    if (std::exchange(slots_[slice.slot].last_step, num_steps_) == num_steps_) fail(slice, "twice in the step");
  }
  if (num_tokens > static_cast<size_t>(info_.max_num_tokens)) {
    fail("a step of ", num_tokens, " tokens; this engine takes ", info_.max_num_tokens);
  }
  if (num_logits > info_.max_returned_logits) {
    fail("a step that returns ", num_logits, " rows of logits; this engine returns ", info_.max_returned_logits);
  }
}

void StepCheck::check(std::span<const BlockCopy> copies) const {
  const int32_t num_blocks = info_.num_blocks + info_.num_host_blocks;
  for (const BlockCopy& copy : copies) {
    if (std::min(copy.source, copy.destination) < 0 || std::max(copy.source, copy.destination) >= num_blocks) {
      fail("cannot copy block ", copy.source, " to ", copy.destination, "; this engine has ", num_blocks, " blocks");
    }
  }
}

void StepCheck::check_extent(const SequenceSlice& slice) const {
  if (slice.slot < 0 || slice.slot >= info_.max_batch_size) {
    fail(slice, "this engine has slots 0 to ", info_.max_batch_size - 1);
  }
  if (slice.tokens.empty()) fail(slice, "no tokens");
  const int64_t length = int64_t{slice.past_length} + static_cast<int64_t>(slice.tokens.size());
  if (slice.past_length < 0 || length > info_.max_seq_len) {
    fail(slice, "past_length is ", slice.past_length, " with ", slice.tokens.size(), " tokens; max_seq_len is ",
         info_.max_seq_len);
  }
  if (static_cast<int64_t>(slice.block_ids.size()) * info_.tokens_per_block < length) {
    fail(slice, slice.block_ids.size(), " blocks do not hold ", length, " tokens");
  }
}

void StepCheck::check_tokens(const SequenceSlice& slice) const {
  for (size_t i = 0; i < slice.tokens.size(); ++i) {
    const int32_t token = slice.tokens[i];
    const bool is_valid = (token >= 0 && token < info_.vocab_size) || (token == kPreviousToken && i == 0);
    if (!is_valid) fail(slice, "token id ", token, "; the vocabulary has ", info_.vocab_size);
  }
}

// Blocks may be missing only between the sink tokens and the window of the slice's first token.
void StepCheck::check_blocks(const SequenceSlice& slice) const {
  const int64_t window = info_.attention_window > 0 ? info_.attention_window : info_.max_seq_len;
  const int64_t freed_end = (slice.past_length - window + 1) / info_.tokens_per_block;
  const int64_t freed_begin = divide_up(info_.sink_tokens, info_.tokens_per_block);
  const int64_t num_blocks = static_cast<int64_t>(slice.block_ids.size());
  for (int64_t i = 0; i < num_blocks; ++i) {
    const int32_t block = slice.block_ids[i];
    if (block >= 0 && block < info_.num_blocks) continue;
    if (block != kFreedBlock) {
      fail(slice, "block ", block, "; steps of this engine take blocks 0 to ", info_.num_blocks - 1);
    }
    if (i < freed_begin || i >= freed_end) {
      fail(slice, "block_ids[", i, "] is freed, but the token at position ", slice.past_length, " sees it");
    }
  }
}

void StepCheck::check_sampling(const SequenceSlice& slice, const StepInput& input) const {
  if (slice.is_masked && input.masks == nullptr) fail(slice, "a masked slice in a step without masks");
  if (slice.num_drafts == 0) return;
  if (slice.num_drafts < 0 || slice.num_drafts >= static_cast<int64_t>(slice.tokens.size())) {
    fail(slice, "num_drafts is ", slice.num_drafts, "; with ", slice.tokens.size(), " tokens it must be in [0, ",
         slice.tokens.size() - 1, "]");
  }
  if (!slice.samples) fail(slice, "drafts in a slice that does not sample");
  if (slice.is_masked) fail(slice, "drafts in a masked slice");
  if (slots_[slice.slot].has_candidates) fail(slice, "drafts in a slot of a beam");
}

}  // namespace inflight
