#include "engine/tensorrt/step_staging.h"

#include <algorithm>
#include <bit>

#include "engine/token_choice.h"

namespace inflight::gpu {
namespace {

// Graphs are few where tables are as wide as few widths, and attention's work is divided by how wide they are.
constexpr int32_t kLeastTableWidth = 4;

// The first of a sequence's settings that this engine does not have; null: it has all.
const char* unsupported(const SamplingConfig& config) {
  if (config.num_candidates > 0) return "beam search";
  if (config.repetition_penalty != 1) return "repetition_penalty";
  if (config.presence_penalty != 0) return "presence_penalty";
  if (config.frequency_penalty != 0) return "frequency_penalty";
  if (config.min_length > 0) return "min_length";
  if (!config.bad_words.empty()) return "bad_words";
  if (config.embedding_bias != nullptr) return "embedding_bias";
  if (config.return_log_probs) return "return_log_probs";
  if (config.top_p_reset_id >= 0) return "top_p_reset_id";
  return nullptr;
}

const char* unsupported(const SequenceSlice& slice) {
  if (slice.num_drafts > 0) return "draft tokens";
  if (slice.returned_logits != ReturnedLogits::kNone) return "returned logits";
  if (!slice.mask.empty()) return "guided decoding";
  return nullptr;
}

Error not_supported(const char* what) {
  return {ErrorCode::kUnsupported, concat("the TensorRT engine does not have ", what, " yet: leave it out")};
}

SamplingRow sampling_row(const SamplingConfig& config, float top_p, uint64_t num_generated) {
  const bool greedy = is_greedy({config.top_k, top_p, config.min_p, config.temperature});
  return {.seed = config.random_seed,
          .num_generated = num_generated,
          .top_k = greedy ? 1 : config.top_k,
          .top_p = greedy ? 0 : top_p,
          .min_p = greedy ? 0 : config.min_p,
          .temperature = greedy ? 1 : config.temperature,
          .end_id = config.end_ids.empty() ? 0 : config.end_ids.front()};
}

void clear(StagedStep& step) {
  for (auto* const array : {&step.tokens, &step.token_slots, &step.positions, &step.sequences, &step.block_table,
                            &step.lengths, &step.first_queries, &step.sampled_rows, &step.sampled_slots}) {
    array->clear();
  }
  step.sampling.clear();
  step.forks.clear();
  step.failures.clear();
  step.first_queries.push_back(0);
  step.table_width = kLeastTableWidth;
  step.longest_chunk = 1;
  step.has_graph = false;
}

}  // namespace

StepStaging::StepStaging(int32_t max_batch_size, int32_t spare_block, std::vector<int32_t> graph_sizes)
    : slots_(max_batch_size), spare_block_(spare_block), graph_sizes_(std::move(graph_sizes)) {
  in_step_.reserve(max_batch_size);
}

void StepStaging::stage(const StepInput& input, StagedStep& step) {
  clear(step);
  for (const SlotSetup& setup : input.setups) {
    set_up(setup);
    if (setup.parent >= 0) step.forks.emplace_back(setup.parent, setup.slot);
  }
  in_step_.clear();
  for (const SequenceSlice& slice : input.slices) {
    if (const Slot* slot = take(slice, step)) {
      in_step_.push_back(&slice);
      const auto blocks = static_cast<uint32_t>(slot->block_ids.size());
      step.table_width = std::max(step.table_width, static_cast<int32_t>(std::bit_ceil(blocks)));
    }
  }
  const auto is_chunk = [](const SequenceSlice* slice) { return slice->tokens.size() > 1; };
  for (const bool chunks : {false, true}) {
    for (const SequenceSlice* slice : in_step_) {
      if (is_chunk(slice) == chunks) add_sequence(*slice, slots_[slice->slot], step);
    }
  }
  step.has_graph = !in_step_.empty() && step.sampled_rows.size() == in_step_.size() &&
                   std::ranges::none_of(in_step_, is_chunk) && !graph_sizes_.empty() &&
                   step.lengths.size() <= static_cast<size_t>(graph_sizes_.back());
  if (step.has_graph) fill_up(step);
}

void StepStaging::set_up(const SlotSetup& setup) {
  Slot& slot = slots_[setup.slot];
  slot.block_ids.clear();
  slot.failure.reset();
  if (setup.parent >= 0) {
    const Slot& parent = slots_[setup.parent];
    slot.block_ids.assign(parent.block_ids.begin(), parent.block_ids.begin() + setup.num_parent_blocks);
    slot.sampling = parent.sampling;
    slot.num_generated = parent.num_generated;
    slot.top_p = parent.top_p;
    slot.failure = parent.failure;
    return;
  }
  slot.sampling = setup.sampling;
  slot.num_generated = setup.generated.size();
  slot.top_p = setup.sampling.top_p;
  for (size_t i = 0; i < setup.generated.size(); ++i) {
    slot.top_p = std::max(setup.sampling.top_p_min, slot.top_p * setup.sampling.top_p_decay);
  }
  if (setup.sampling.top_p == 0) slot.top_p = 0;  // none, which does not decay
  if (const char* what = unsupported(setup.sampling)) slot.failure = not_supported(what);
}

// The slot, whose blocks the slice has added to; null where it is left out of the step.
const StepStaging::Slot* StepStaging::take(const SequenceSlice& slice, StagedStep& step) {
  Slot& slot = slots_[slice.slot];
  for (const int32_t block : slice.new_block_ids) {
    slot.block_ids.push_back(block == kFreedBlock ? spare_block_ : block);
  }
  if (!slot.failure) {
    if (const char* what = unsupported(slice)) slot.failure = not_supported(what);
  }
  if (!slot.failure) return &slot;
  step.failures.push_back({slice.slot, *slot.failure});
  return nullptr;
}

void StepStaging::add_sequence(const SequenceSlice& slice, const Slot& slot, StagedStep& step) {
  const auto sequence = static_cast<int32_t>(step.lengths.size());
  const auto count = static_cast<int32_t>(slice.tokens.size());
  for (int32_t i = 0; i < count; ++i) {
    const bool is_previous = slice.tokens[i] == kPreviousToken;
    step.tokens.push_back(is_previous ? 0 : slice.tokens[i]);
    step.token_slots.push_back(is_previous ? slice.slot : -1);
    step.positions.push_back(slice.past_length + i);
    step.sequences.push_back(sequence);
  }
  step.lengths.push_back(slice.past_length + count);
  step.block_table.insert(step.block_table.end(), slot.block_ids.begin(), slot.block_ids.end());
  step.block_table.resize(size_t{1} * (sequence + 1) * step.table_width, spare_block_);
  if (count > 1) {
    step.first_queries.push_back(step.first_queries.back() + count);
    step.longest_chunk = std::max(step.longest_chunk, count);
  }
  if (slice.samples) add_sampled(slice, step);
}

void StepStaging::add_sampled(const SequenceSlice& slice, StagedStep& step) {
  Slot& slot = slots_[slice.slot];
  step.sampled_rows.push_back(static_cast<int32_t>(step.tokens.size()) - 1);
  step.sampled_slots.push_back(slice.slot);
  step.sampling.push_back(sampling_row(slot.sampling, slot.top_p, slot.num_generated));
  ++slot.num_generated;
  if (slot.top_p > 0) slot.top_p = std::max(slot.sampling.top_p_min, slot.top_p * slot.sampling.top_p_decay);
}

// Sequences of one token each, that nobody looks at.
void StepStaging::fill_up(StagedStep& step) const {
  const size_t size = *std::ranges::lower_bound(graph_sizes_, static_cast<int32_t>(step.lengths.size()));
  for (auto sequence = static_cast<int32_t>(step.lengths.size()); step.lengths.size() < size; ++sequence) {
    step.tokens.push_back(0);
    step.token_slots.push_back(-1);
    step.positions.push_back(0);
    step.sequences.push_back(sequence);
    step.lengths.push_back(1);
    step.sampled_rows.push_back(sequence);
    step.sampled_slots.push_back(-1);
    step.sampling.push_back(sampling_row({}, 0, 0));
  }
  step.block_table.resize(size * step.table_width, spare_block_);
}

}  // namespace inflight::gpu
