#include "engine/step_check.h"

#include <algorithm>
#include <ranges>
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

StepCheck::StepCheck(const EngineInfo& info) : info_(info), slots_(info.max_batch_size) {
  changed_.reserve(2 * static_cast<size_t>(info.max_batch_size));
}

void StepCheck::check(const StepInput& input) {
  ++num_steps_;
  changed_.clear();
  try {
    check_all(input);
  } catch (...) {
    for (const auto& [slot, before] : std::views::reverse(changed_)) slots_[slot] = before;
    throw;
  }
}

void StepCheck::check_all(const StepInput& input) {
  if (input.slices.size() > static_cast<size_t>(info_.max_batch_size)) {
    fail("a step of ", input.slices.size(), " sequences; this engine takes ", info_.max_batch_size);
  }
  for (const BlockCopy& copy : input.copies) check(copy);
  for (const SlotSetup& setup : input.setups) take(setup);
  size_t num_tokens = 0;
  int64_t num_logits = 0;
  for (const SequenceSlice& slice : input.slices) {
    take(slice);
    num_tokens += slice.tokens.size();
    num_logits += num_returned_logits(slice);
  }
  if (num_tokens > static_cast<size_t>(info_.max_num_tokens)) {
    fail("a step of ", num_tokens, " tokens; this engine takes ", info_.max_num_tokens);
  }
  if (num_logits > info_.max_returned_logits) {
    fail("a step that returns ", num_logits, " rows of logits; this engine returns ", info_.max_returned_logits);
  }
}

// The slot as it is to be after the step.
StepCheck::Slot& StepCheck::change(int32_t slot) {
  changed_.emplace_back(slot, slots_[slot]);
  return slots_[slot];
}

void StepCheck::check(const BlockCopy& copy) const {
  const int32_t num_blocks = info_.num_blocks + info_.num_host_blocks;
  if (std::min(copy.source, copy.destination) < 0 || std::max(copy.source, copy.destination) >= num_blocks) {
    fail("cannot copy block ", copy.source, " to ", copy.destination, "; this engine has ", num_blocks, " blocks");
  }
}

void StepCheck::check_slot(const char* what, int32_t slot) const {
  if (slot < 0 || slot >= info_.max_batch_size) {
    fail(what, " is ", slot, "; this engine has slots 0 to ", info_.max_batch_size - 1);
  }
}

void StepCheck::take(const SlotSetup& setup) {
  check_slot("the slot of a setup", setup.slot);
  if (slots_[setup.slot].last_setup == num_steps_) fail("slot ", setup.slot, ": set up twice in the step");
  Slot slot{.is_given = true, .last_setup = num_steps_};
  if (setup.parent < 0) {
    const size_t length = setup.prompt.size() + setup.generated.size();
    if (length > static_cast<size_t>(info_.max_seq_len)) {
      fail("slot ", setup.slot, ": set up with ", length, " tokens; max_seq_len is ", info_.max_seq_len);
    }
    slot.has_candidates = setup.sampling.num_candidates > 0;
  } else {
    check_slot("the parent of a fork", setup.parent);
    const Slot& parent = slots_[setup.parent];
    if (setup.parent == setup.slot || !parent.is_given) {
      fail("slot ", setup.slot, ": a fork of slot ", setup.parent, ", which has no sequence of its own");
    }
    if (setup.num_parent_blocks < 0 || setup.num_parent_blocks > parent.num_blocks) {
      fail("slot ", setup.slot, ": a fork with ", setup.num_parent_blocks, " blocks of slot ", setup.parent,
           ", which has ", parent.num_blocks);
    }
    slot.has_candidates = parent.has_candidates;
    slot.has_sampled = parent.has_sampled;
    slot.num_blocks = setup.num_parent_blocks;
  }
  change(setup.slot) = slot;
}

void StepCheck::take(const SequenceSlice& slice) {
  check_slot("the slot of a slice", slice.slot);
  const Slot& before = slots_[slice.slot];
  if (!before.is_given) fail(slice, "no setup has given it to a sequence");
  if (before.last_slice == num_steps_) fail(slice, "twice in the step");
  const int64_t num_blocks = before.num_blocks + static_cast<int64_t>(slice.new_block_ids.size());
  check_extent(slice, num_blocks);
  check_tokens(slice, before);
  check_blocks(slice, before.num_blocks);
  check_sampling(slice, before);
  Slot& slot = change(slice.slot);
  slot.num_blocks = num_blocks;
  slot.has_sampled |= slice.samples;
  slot.last_slice = num_steps_;
}

void StepCheck::check_extent(const SequenceSlice& slice, int64_t num_blocks) const {
  if (slice.tokens.empty()) fail(slice, "no tokens");
  const int64_t length = int64_t{slice.past_length} + static_cast<int64_t>(slice.tokens.size());
  if (slice.past_length < 0 || length > info_.max_seq_len) {
    fail(slice, "past_length is ", slice.past_length, " with ", slice.tokens.size(), " tokens; max_seq_len is ",
         info_.max_seq_len);
  }
  if (num_blocks * info_.tokens_per_block < length) {
    fail(slice, num_blocks, " blocks do not hold ", length, " tokens");
  }
}

void StepCheck::check_tokens(const SequenceSlice& slice, const Slot& slot) const {
  for (size_t i = 0; i < slice.tokens.size(); ++i) {
    const int32_t token = slice.tokens[i];
    const bool is_valid = (token >= 0 && token < info_.vocab_size) || (token == kPreviousToken && i == 0);
    if (!is_valid) fail(slice, "token id ", token, "; the vocabulary has ", info_.vocab_size);
  }
  if (slice.tokens.front() != kPreviousToken) return;
  if (slot.has_candidates) fail(slice, "no previous token: its beam may take any of its candidates");
  if (!slot.has_sampled) fail(slice, "no previous token: no step has sampled one for it");
}

// Blocks may be missing only between the sink tokens and the window of the slice's first token.
void StepCheck::check_blocks(const SequenceSlice& slice, int64_t first) const {
  const int64_t window = info_.attention_window > 0 ? info_.attention_window : info_.max_seq_len;
  const int64_t freed_end = (slice.past_length - window + 1) / info_.tokens_per_block;
  const int64_t freed_begin = divide_up(info_.sink_tokens, info_.tokens_per_block);
  const int64_t count = static_cast<int64_t>(slice.new_block_ids.size());
  for (int64_t i = 0; i < count; ++i) {
    const int32_t block = slice.new_block_ids[i];
    if (block >= 0 && block < info_.num_blocks) continue;
    if (block != kFreedBlock) {
      fail(slice, "block ", block, "; steps of this engine take blocks 0 to ", info_.num_blocks - 1);
    }
    if (first + i < freed_begin || first + i >= freed_end) {
      fail(slice, "block ", first + i, " of its list is freed, but the token at position ", slice.past_length,
           " sees it");
    }
  }
}

void StepCheck::check_sampling(const SequenceSlice& slice, const Slot& slot) const {
  const size_t words_per_mask = divide_up(info_.vocab_size, 32);
  if (!slice.mask.empty() && slice.mask.size() != words_per_mask) {
    fail(slice, "a mask of ", slice.mask.size(), " words; the vocabulary takes ", words_per_mask);
  }
  if (slice.num_drafts == 0) return;
  if (slice.num_drafts < 0 || slice.num_drafts >= static_cast<int64_t>(slice.tokens.size())) {
    fail(slice, "num_drafts is ", slice.num_drafts, "; with ", slice.tokens.size(), " tokens it must be in [0, ",
         slice.tokens.size() - 1, "]");
  }
  if (!slice.samples) fail(slice, "drafts in a slice that does not sample");
  if (!slice.mask.empty()) fail(slice, "drafts in a masked slice");
  if (slot.has_candidates) fail(slice, "drafts in a slot of a beam");
}

}  // namespace inflight
