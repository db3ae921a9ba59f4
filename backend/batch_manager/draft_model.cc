#include "batch_manager/draft_model.h"

#include <algorithm>
#include <utility>

#include "common/error.h"

namespace inflight {
namespace {

KvCacheOptions cache_options(const EngineInfo& info) {
  return {.num_blocks = info.num_blocks,
          .tokens_per_block = info.tokens_per_block,
          .attention_window = info.attention_window,
          .sink_tokens = info.sink_tokens};
}

template <class... Args>
[[noreturn]] void misfit(const Args&... args) {
  throw_error(ErrorCode::kInvalidArgument, "the draft model does not fit the target model: ", args...);
}

int32_t num_drafts_for(const Sequence& sequence, int32_t max_drafts) {
  return std::min({max_drafts, sequence.max_drafts(), sequence.request.num_draft_tokens.value_or(max_drafts)});
}

// Nobody sees the log-probs of drafts.
SamplingConfig draft_sampling(const Sequence& sequence) {
  SamplingConfig sampling = sequence.sampling();
  sampling.return_log_probs = false;
  sampling.num_top_log_probs.reset();
  return sampling;
}

}  // namespace

void check_draft_model(const EngineInfo& draft_engine, const EngineInfo& target) {
  if (draft_engine.vocab_size != target.vocab_size) {
    misfit("its vocab_size is ", draft_engine.vocab_size, ", the target's ", target.vocab_size,
           "; both must have one tokenizer");
  }
  if (draft_engine.max_batch_size < target.max_batch_size) {
    misfit("its max_batch_size is ", draft_engine.max_batch_size, ", the target's ", target.max_batch_size,
           "; rebuild it with --max-batch-size ", target.max_batch_size);
  }
  if (draft_engine.max_num_tokens < target.max_batch_size) {
    misfit("its max_num_tokens is ", draft_engine.max_num_tokens, ", the target's max_batch_size ",
           target.max_batch_size,
           ": a step of it must hold a token of each sequence; rebuild it with a larger --max-num-tokens");
  }
  if (draft_engine.max_seq_len < target.max_seq_len) {
    misfit("its max_seq_len is ", draft_engine.max_seq_len, ", the target's ", target.max_seq_len,
           "; rebuild it with --max-seq-len ", target.max_seq_len);
  }
}

DraftModel::DraftModel(std::shared_ptr<Engine> engine, const EngineInfo& target)
    : engine_(std::move(engine)), kv_cache_(cache_options(engine_->info())), slots_(target.max_batch_size) {
  check_draft_model(engine_->info(), target);
  slices_.reserve(target.max_batch_size);
  in_step_.reserve(target.max_batch_size);
}

void DraftModel::propose(std::span<Sequence* const> sequences, int32_t max_drafts) {
  for (Sequence* sequence : sequences) sequence->drafts.clear();
  try {
    read_texts(sequences, max_drafts);
    for (int32_t round = 1; round < max_drafts; ++round) draft_on(sequences, max_drafts);
  } catch (...) {  // what the failed step should have read is not in the cache
    for (const Sequence* sequence : sequences) release(slots_[sequence->slot]);
    throw;
  }
}

// The first draft of each sequence: a step feeds what its text has gained since the last one.
void DraftModel::read_texts(std::span<Sequence* const> sequences, int32_t max_drafts) {
  setups_.clear();
  slices_.clear();
  in_step_.clear();
  int32_t budget = engine_->info().max_num_tokens;
  for (Sequence* sequence : sequences) {
    if (num_drafts_for(*sequence, max_drafts) <= 0 || budget == 0) continue;
    Slot& slot = slots_[sequence->slot];
    if (slot.request != sequence->state->id || slot.index != sequence->index) {
      release(slot);
      slot.request = sequence->state->id;
      slot.index = sequence->index;
    }
    const auto tokens = std::span<const int32_t>(sequence->tokens);
    const int32_t length = static_cast<int32_t>(tokens.size());
    // Drafts that the sequence has taken are read already; the last token is read again, for what follows it.
    for (const int32_t draft : slot.fed_drafts) {
      if (slot.num_read >= length - 1 || tokens[slot.num_read] != draft) break;
      ++slot.num_read;
    }
    slot.fed_drafts.clear();
    slot.num_read = std::min(slot.num_read, length - 1);
    const int32_t num_tokens = std::min(length - slot.num_read, budget);
    if (!extend(slot, slot.num_read + num_tokens, sequences)) {
      release(slot);
      continue;
    }
    budget -= num_tokens;
    // Drafts that were not accepted are part of what the engine takes for the slot's history.
    setups_.push_back({.slot = sequence->slot,
                       .sampling = draft_sampling(*sequence),
                       .prompt = sequence->request.input_ids,
                       .generated = sequence->generated()});
    slot.num_sent_blocks = 0;
    add_slice(*sequence, tokens.subspan(slot.num_read, num_tokens), slot.num_read);
    slices_.back().samples = slot.num_read + num_tokens == length;
    slot.num_read += num_tokens;
  }
  run_step();
}

// One more draft of each sequence that has some.
void DraftModel::draft_on(std::span<Sequence* const> sequences, int32_t max_drafts) {
  setups_.clear();
  slices_.clear();
  in_step_.clear();
  for (Sequence* sequence : sequences) {
    const int32_t num_drafts = static_cast<int32_t>(sequence->drafts.size());
    if (num_drafts == 0 || num_drafts >= num_drafts_for(*sequence, max_drafts)) continue;
    Slot& slot = slots_[sequence->slot];
    const int32_t past_length = slot.num_read + static_cast<int32_t>(slot.fed_drafts.size());
    if (!extend(slot, past_length + 1, sequences)) continue;
    add_slice(*sequence, std::span<const int32_t>(sequence->drafts).last(1), past_length);
    slot.fed_drafts.push_back(sequence->drafts.back());
  }
  run_step();
}

void DraftModel::add_slice(Sequence& sequence, std::span<const int32_t> tokens, int32_t past_length) {
  SequenceSlice slice;
  slice.slot = sequence.slot;
  slice.tokens = tokens;
  slice.past_length = past_length;
  Slot& slot = slots_[sequence.slot];
  slice.new_block_ids = std::span<const int32_t>(slot.blocks.block_ids).subspan(slot.num_sent_blocks);
  slot.num_sent_blocks = static_cast<int32_t>(slot.blocks.block_ids.size());
  slices_.push_back(slice);
  in_step_.push_back(&sequence);
}

void DraftModel::run_step() {
  if (slices_.empty()) return;
  engine_->launch({.setups = setups_, .slices = slices_});
  const StepOutput output = engine_->finish();
  size_t next = 0;
  for (size_t i = 0; i < slices_.size() && next < output.tokens.size(); ++i) {
    const SampledToken& sampled = output.tokens[next];
    if (!slices_[i].samples || sampled.slot != slices_[i].slot) continue;  // the latter: it failed alone
    in_step_[i]->drafts.push_back(sampled.token);
    ++next;
  }
}

// What ended or paused sequences have left is taken back only when there is need.
bool DraftModel::extend(Slot& slot, int32_t num_tokens, std::span<Sequence* const> sequences) {
  if (kv_cache_.extend(slot.blocks, num_tokens)) return true;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const auto is_its = [i](const Sequence* sequence) { return sequence->slot == static_cast<int32_t>(i); };
    if (&slots_[i] != &slot && std::none_of(sequences.begin(), sequences.end(), is_its)) release(slots_[i]);
  }
  return kv_cache_.extend(slot.blocks, num_tokens);
}

void DraftModel::release(Slot& slot) {
  kv_cache_.release(slot.blocks);
  slot.request = 0;
  slot.num_read = 0;
  slot.fed_drafts.clear();
}

}  // namespace inflight
