#include "batch_manager/scheduler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/error.h"

namespace inflight {
namespace {

bool rank_before(const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
  return a->rank() < b->rank();
}

// Moves the finished sequences of a container behind `finished`, keeping the order of the others.
template <class Sequences>
void move_finished(Sequences& sequences, std::vector<std::unique_ptr<Sequence>>& finished) {
  size_t kept = 0;
  for (auto& sequence : sequences) {
    if (sequence->is_finished()) {
      finished.push_back(std::move(sequence));
    } else {
      std::swap(sequences[kept++], sequence);
    }
  }
  sequences.resize(kept);
}

}  // namespace

Scheduler::Scheduler(const EngineInfo& info, SchedulerPolicy policy, bool enable_chunked_context,
                     bool enable_kv_cache_reuse)
    : info_(info),
      policy_(policy),
      enable_chunked_context_(enable_chunked_context),
      enable_kv_cache_reuse_(enable_kv_cache_reuse),
      kv_cache_({.num_blocks = info.num_blocks,
                 .num_host_blocks = info.num_host_blocks,
                 .tokens_per_block = info.tokens_per_block,
                 .enable_reuse = enable_kv_cache_reuse,
                 .attention_window = info.attention_window,
                 .sink_tokens = info.sink_tokens}),
      sequences_(info.max_batch_size),
      logits_budget_(info.logits_bytes) {
  for (int32_t slot = info.max_batch_size - 1; slot >= 0; --slot) free_slots_.push_back(slot);
  running_.reserve(info.max_batch_size);
  scheduled_.reserve(info.max_batch_size);
}

void Scheduler::add(std::shared_ptr<RequestState> request) {
  num_queued_ += request->num_waiting();
  queue_of(*request).add(std::move(request));
}

RequestQueue& Scheduler::queue_of(const RequestState& request) {
  return logits_bytes(request.request, info_.vocab_size) > 0 ? logits_queue_ : queue_;
}

const std::vector<ScheduledSequence>& Scheduler::schedule(bool wait_for_host) {
  if (wait_for_host) {
    for (auto& sequence : running_) sequence->is_onboarding = false;
  }
  scheduled_.clear();
  paused_now_ = false;
  budget_ = {info_.max_num_tokens, info_.max_returned_logits};
  schedule_generation();
  if (schedule_contexts() && !paused_now_) start_waiting();
  schedule_drafts();
  return scheduled_;
}

void Scheduler::schedule_generation() {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.in_context_phase() || sequence.is_onboarding || !sequence.may_generate()) continue;
    if (!make_room(i)) continue;
    scheduled_.push_back({&sequence, 1, 0, false});
    budget_.tokens -= sequence.num_slots();
    if (sequence.returned_logits(/*samples=*/true) != ReturnedLogits::kNone) --budget_.logits;
  }
}

// The sequence at `index` gets its block, if need be by pausing those of the last rank, so that the first in rank goes
// on: alone, or beside beam searches, which have all that they need, any sequence fits in the end. False if it was
// paused itself; `index` is then the one before.
bool Scheduler::make_room(size_t& index) {
  Sequence& sequence = *running_[index];
  if (sequence.is_beam_search()) {
    for (BeamSlot& beam : sequence.beams) {
      if (!kv_cache_.extend(beam.blocks, sequence.next_position() + 1)) {
        throw_error(ErrorCode::kInternal, "the KV cache has no block for a beam within its reservation");
      }
    }
    return true;
  }
  while (!kv_cache_.extend(sequence.blocks, sequence.next_position() + 1)) {
    if (policy_ != SchedulerPolicy::kMaxUtilization) {
      throw_error(ErrorCode::kInternal, "the KV cache has no block within a reservation");
    }
    size_t victim = running_.size() - 1;
    while (victim > index && running_[victim]->is_beam_search()) --victim;
    pause(victim);
    paused_now_ = true;
    if (victim == index) {
      --index;  // may wrap around; the caller's ++ wraps it back
      return false;
    }
  }
  return true;
}

// A context that does not fit closes the step to those behind it, so that nothing overtakes it for ever: false.
bool Scheduler::schedule_contexts() {
  for (auto& sequence : running_) {
    if (!sequence->in_context_phase() || sequence->is_onboarding) continue;
    if (!add_context_chunk(*sequence)) return false;
  }
  return true;
}

bool Scheduler::add_context_chunk(Sequence& sequence) {
  const int32_t wanted = sequence.num_uncached();
  const ReturnedLogits returned = sequence.returned_logits(/*samples=*/true);
  const bool returns_all = returned == ReturnedLogits::kAll;
  // What a paused sequence computes anew, or returns logits of, may be longer than any step.
  const bool is_chunked = enable_chunked_context_ || sequence.num_generated() > 0 || returns_all;
  if (budget_.tokens <= 0 || (wanted > budget_.tokens && !is_chunked)) return false;
  if (returned != ReturnedLogits::kNone && budget_.logits <= 0) return true;  // those behind it need none, perhaps
  int32_t num_tokens = std::min({wanted, budget_.tokens, returns_all ? budget_.logits : wanted});
  if (num_tokens < wanted) {  // the next chunk begins with a block, if this one can reach its start
    const int32_t begin = sequence.next_position();
    const int32_t aligned = (begin + num_tokens) / info_.tokens_per_block * info_.tokens_per_block;
    if (aligned > begin) num_tokens = aligned - begin;
  }
  if (!kv_cache_.extend(sequence.blocks, sequence.next_position() + num_tokens)) {
    throw_error(ErrorCode::kInternal, "the KV cache has no block for a context within its reservation");
  }
  scheduled_.push_back({&sequence, num_tokens, 0, true});
  budget_.tokens -= num_tokens;
  if (returned != ReturnedLogits::kNone) budget_.logits -= returns_all ? num_tokens : 1;
  return true;
}

void Scheduler::start_waiting() {
  const bool is_static = policy_ == SchedulerPolicy::kStaticBatch;
  const bool joins_only = is_static && !running_.empty();
  const auto must_wait = [&](const Sequence& sequence) {
    return !may_start(sequence) || (joins_only && sequence.state->computed_prompt == nullptr);
  };
  for (size_t i = 0; !free_slots_.empty() && (budget_.tokens > 0 || is_static);) {
    while (i < waiting_.size() && must_wait(*waiting_[i])) ++i;
    const auto request = next_request(joins_only);
    if (request && (i == waiting_.size() || request->rank_of_next() < waiting_[i]->rank())) {
      if (const auto made = make_sequence(request)) i = *made;
      continue;
    }
    if (i == waiting_.size() || !start(*waiting_[i])) return;
    Sequence& sequence = *waiting_[i];
    running_.insert(std::upper_bound(running_.begin(), running_.end(), waiting_[i], rank_before),
                    std::move(waiting_[i]));
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    if (sequence.is_onboarding) continue;
    if (!add_context_chunk(sequence) && !is_static) return;
  }
}

// The first in rank of those whose next sequence may be made: the sequences of one request share their prompt's blocks,
// so that while one computes it, the others wait. Null if there is none.
std::shared_ptr<RequestState> Scheduler::next_request(bool joins_only) const {
  std::shared_ptr<RequestState> first;
  for (const auto& request : opened_) {
    if (request->is_ended() || request->computing_prompt != nullptr) continue;
    if (joins_only && request->computed_prompt == nullptr) continue;
    if (!first || request->rank_of_next() < first->rank_of_next()) first = request;
  }
  if (joins_only) return first;
  for (const RequestQueue* queue : {&queue_, &logits_queue_}) {
    if (queue->empty() || (first && first->rank_of_next() <= queue->first()->rank)) continue;
    if (!logits_budget_.has_room(logits_bytes(queue->first()->request, info_.vocab_size))) continue;
    first = queue->first();
  }
  return first;
}

// Makes the request's next sequence. Returns its index in waiting_; none if it cannot be made, which ends the request.
std::optional<size_t> Scheduler::make_sequence(const std::shared_ptr<RequestState>& request) {
  if (request->num_made == 0) {
    opened_.push_back(request);
    queue_of(*request).remove(*request);
    const int64_t logits = logits_bytes(request->request, info_.vocab_size);
    if (logits > 0) request->logits_memory = logits_budget_.reserve(logits);
  }
  try {
    auto sequence = std::make_unique<Sequence>(request, request->num_made, info_.vocab_size);
    const auto place = std::upper_bound(waiting_.begin(), waiting_.end(), sequence, rank_before);
    const size_t index = place - waiting_.begin();
    waiting_.insert(place, std::move(sequence));
    if (++request->num_made == request->num_sequences()) std::erase(opened_, request);
    return index;
  } catch (const std::exception& error) {
    request->error = Error(ErrorCode::kInternal, concat("a sequence cannot be made: ", error.what()));
    return std::nullopt;
  }
}

// Drafts never pause anyone: what the budget and the free blocks leave.
void Scheduler::schedule_drafts() {
  for (ScheduledSequence& scheduled : scheduled_) {
    Sequence& sequence = *scheduled.sequence;
    if (sequence.drafts.empty() || scheduled.num_tokens < sequence.num_uncached()) continue;
    const bool returns_logits = sequence.returned_logits(/*samples=*/true) != ReturnedLogits::kNone;
    const int32_t num_drafts = std::min({static_cast<int32_t>(sequence.drafts.size()), budget_.tokens,
                                         sequence.max_drafts(), returns_logits ? budget_.logits : budget_.tokens});
    if (num_drafts <= 0) continue;
    if (!kv_cache_.extend(sequence.blocks, sequence.next_position() + scheduled.num_tokens + num_drafts)) continue;
    scheduled.num_drafts = num_drafts;
    budget_.tokens -= num_drafts;
    if (returns_logits) budget_.logits -= num_drafts;
  }
}

// Paused before its prompt was computed, it waits for a sibling that computes it now.
bool Scheduler::may_start(const Sequence& sequence) const {
  return sequence.num_generated() > 0 || sequence.state->computing_prompt == nullptr;
}

// Blocks that the sequence is promised when it starts.
int32_t Scheduler::blocks_to_start(const Sequence& sequence) const {
  const bool reserves_all = policy_ != SchedulerPolicy::kMaxUtilization || sequence.is_beam_search();
  const int64_t num_tokens = reserves_all ? sequence.max_cached_tokens() : static_cast<int64_t>(sequence.tokens.size());
  return kv_cache_.peak_blocks(num_tokens, info_.max_tokens_in_flight());
}

// Blocks that it, or each of its beams, is promised after the context phase. (Drafts take what is free.)
int32_t Scheduler::blocks_to_go_on(const Sequence& sequence) const {
  return kv_cache_.peak_blocks(sequence.max_cached_tokens(), info_.max_steps_in_flight);
}

bool Scheduler::start(Sequence& sequence) {
  if (static_cast<size_t>(sequence.num_slots()) > free_slots_.size()) return false;
  const int32_t num_blocks = blocks_to_start(sequence);
  RequestState& state = *sequence.state;
  const bool is_resumed = sequence.num_generated() > 0;

  sequence.blocks.block_ids.reserve(kv_cache_.blocks_for(sequence.max_cached_tokens()));
  const Sequence* sibling = is_resumed ? nullptr : state.computed_prompt;
  if (sibling != nullptr && kv_cache_.fork(sibling->blocks, sequence.prompt_length - 1, sequence.blocks, num_blocks)) {
    sequence.num_cached = sequence.prompt_length - 1;
  } else if (sibling != nullptr && info_.attention_window == 0) {
    return false;
  } else {  // the first, or the window has left the sibling's prompt behind
    const PrefixKey key{sequence.tokens, sequence.request.lora_task_id, sequence.request.prompt_extra_ids};
    const bool computes_all = sequence.request.return_context_logits && state.context_logits == nullptr;
    const auto admission = kv_cache_.admit(sequence.blocks, key, num_blocks, enable_kv_cache_reuse_ && !computes_all);
    if (!admission) return false;
    if (sequence.is_beam_search() && !reserve_beams(sequence)) {
      kv_cache_.release(sequence.blocks);
      return false;
    }
    sequence.num_cached = admission->num_cached;
    sequence.is_onboarding = admission->copies_from_host;
    sequence.onboarding.reset();
    if (!is_resumed && state.num_sequences() > 1) state.computing_prompt = &sequence;
  }
  sequence.run = ++num_runs_;
  sequence.slot = take_slot(sequence);
  sequence.is_set_up = sequence.has_guide_started = false;
  sequence.num_sent_blocks = 0;
  --(is_resumed ? num_paused_ : num_queued_);
  return true;
}

// Slots and promises for the beams that branch off when the prompt is computed.
bool Scheduler::reserve_beams(Sequence& sequence) {
  const int32_t num_blocks = blocks_to_start(sequence);
  const int32_t shared = info_.attention_window > 0 ? 0 : sequence.prompt_length / info_.tokens_per_block;
  for (int32_t beam = 1; beam < sequence.num_slots(); ++beam) {
    BeamSlot spare;
    if (!kv_cache_.admit(spare.blocks, {}, num_blocks - shared, false)) {
      for (BeamSlot& reserved : sequence.spare_beams) kv_cache_.release(reserved.blocks);
      sequence.spare_beams.clear();
      return false;
    }
    sequence.spare_beams.push_back(std::move(spare));
  }
  for (BeamSlot& spare : sequence.spare_beams) spare.slot = take_slot(sequence);
  return true;
}

int32_t Scheduler::take_slot(Sequence& sequence) {
  const int32_t slot = free_slots_.back();
  free_slots_.pop_back();
  sequences_[slot] = &sequence;
  return slot;
}

void Scheduler::free_slot(int32_t slot) {
  sequences_[slot] = nullptr;
  free_slots_.push_back(slot);
}

void Scheduler::commit(Sequence& sequence) {
  RequestState& state = *sequence.state;
  if (state.computing_prompt == &sequence && sequence.num_cached >= sequence.prompt_length) {
    state.computing_prompt = nullptr;
    state.computed_prompt = &sequence;
  }
  if (sequence.beams.empty()) {
    kv_cache_.commit(sequence.blocks, sequence.cached_key());
    if (info_.attention_window > 0 && !sequence.in_context_phase()) {
      const bool is_promised = policy_ != SchedulerPolicy::kMaxUtilization || sequence.is_beam_search();
      kv_cache_.lower_guarantee(sequence.blocks, is_promised ? blocks_to_go_on(sequence) : 0);
    }
    sequence.num_blocks = static_cast<int32_t>(sequence.blocks.block_ids.size());
    sequence.num_reused_blocks = sequence.blocks.num_reused;
    return;
  }
  sequence.num_blocks = 0;
  for (const BeamSlot& beam : sequence.beams) {
    sequence.num_blocks += static_cast<int32_t>(beam.blocks.block_ids.size());
  }
  if (info_.attention_window > 0) commit_beams(sequence);
}

// Beams share their prompt only, but what the attention window leaves behind is to be freed.
void Scheduler::commit_beams(Sequence& sequence) {
  for (size_t i = 0; i < sequence.beams.size(); ++i) {
    const auto generated = sequence.beam_search->generated(static_cast<int32_t>(i));
    beam_tokens_.assign(sequence.tokens.begin(), sequence.tokens.end());
    beam_tokens_.insert(beam_tokens_.end(), generated.begin(), generated.end());
    beam_tokens_.resize(sequence.num_cached);
    kv_cache_.commit(sequence.beams[i].blocks,
                     {beam_tokens_, sequence.request.lora_task_id, sequence.request.prompt_extra_ids});
  }
}

// Forks get the slots of beams that end here.
void Scheduler::reorder_beams(Sequence& sequence, std::span<const BeamChoice> choices) {
  if (sequence.beams.empty()) {
    sequence.beams.push_back({.slot = std::exchange(sequence.slot, -1),
                              .blocks = std::exchange(sequence.blocks, {}),
                              .num_sent_blocks = sequence.num_sent_blocks});
  }
  std::vector<BeamSlot> parents = std::exchange(sequence.beams, {});
  std::vector<int32_t> heirs(parents.size(), -1);  // of each parent: the child with its slot
  std::vector<int32_t> forked;
  sequence.beams.resize(choices.size());
  for (size_t i = 0; i < choices.size(); ++i) {
    int32_t& heir = heirs.at(choices[i].parent);
    if (heir >= 0) {
      forked.push_back(static_cast<int32_t>(i));
    } else {
      heir = static_cast<int32_t>(i);
      sequence.beams[i] = std::move(parents[choices[i].parent]);
    }
  }
  for (size_t parent = 0; parent < parents.size(); ++parent) {
    if (heirs[parent] >= 0) continue;
    kv_cache_.release(parents[parent].blocks);
    sequence.spare_beams.push_back(std::move(parents[parent]));
  }
  const int32_t num_blocks = blocks_to_go_on(sequence);
  for (const int32_t beam : forked) {
    BeamSlot spare = std::move(sequence.spare_beams.back());
    sequence.spare_beams.pop_back();
    kv_cache_.release(spare.blocks);
    const BeamSlot& parent = sequence.beams[heirs[choices[beam].parent]];
    if (!kv_cache_.fork(parent.blocks, sequence.num_cached, spare.blocks, num_blocks)) {
      sequence.spare_beams.push_back(std::move(spare));
      throw_error(ErrorCode::kInternal, "the KV cache has no blocks for a beam within its reservation");
    }
    spare.parent_slot = parent.slot;
    spare.num_sent_blocks = sequence.num_cached / info_.tokens_per_block;
    sequence.beams[beam] = std::move(spare);
  }
  // What the other beams that ended here held stays promised: they may branch off again.
  const int32_t shared = info_.attention_window > 0 ? 0 : sequence.num_cached / info_.tokens_per_block;
  for (BeamSlot& spare : sequence.spare_beams) {
    if (spare.blocks.num_guaranteed > 0) continue;
    if (!kv_cache_.admit(spare.blocks, {}, num_blocks - shared, false)) {
      throw_error(ErrorCode::kInternal, "the KV cache has no blocks for a beam that ended within its reservation");
    }
  }
}

void Scheduler::pause(size_t index) {
  std::unique_ptr<Sequence> sequence = std::move(running_[index]);
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
  kv_cache_.release(sequence->blocks, sequence->cached_key(), sequence->prompt_length, sequence->request.retention);
  stop(*sequence);
  sequence->num_cached = sequence->num_launched = sequence->num_expected = 0;
  ++num_pauses_;
  ++(sequence->num_generated() > 0 ? num_paused_ : num_queued_);
  waiting_.insert(std::lower_bound(waiting_.begin(), waiting_.end(), sequence, rank_before), std::move(sequence));
}

// The sequence's blocks are released; now the rest of what it holds while it runs.
void Scheduler::stop(Sequence& sequence) {
  RequestState& state = *sequence.state;
  if (state.computed_prompt == &sequence) state.computed_prompt = nullptr;
  if (state.computing_prompt == &sequence) state.computing_prompt = nullptr;
  if (sequence.slot >= 0) free_slot(std::exchange(sequence.slot, -1));
  sequence.is_onboarding = false;
}

void Scheduler::collect_finished() {
  const size_t begin = finished_.size();
  move_finished(running_, finished_);
  const size_t num_ran = finished_.size();
  move_finished(waiting_, finished_);
  for (size_t i = begin; i < finished_.size(); ++i) {
    if (i < num_ran) {
      release(*finished_[i]);
    } else {
      --(finished_[i]->num_generated() > 0 ? num_paused_ : num_queued_);
    }
  }
  std::erase_if(opened_, [this](const auto& request) {
    if (!request->is_ended()) return false;
    num_queued_ -= request->num_waiting();
    ended_.push_back(request);
    return true;
  });
}

void Scheduler::remove_ended(const RequestState& request) {
  num_queued_ -= request.num_waiting();
  ended_.push_back(queue_of(request).remove(request));
}

// Everything that a running sequence holds.
void Scheduler::release(Sequence& sequence) {
  for (auto* beams : {&sequence.beams, &sequence.spare_beams}) {
    for (BeamSlot& beam : *beams) {
      kv_cache_.release(beam.blocks);
      if (beam.slot >= 0) free_slot(beam.slot);
    }
    beams->clear();
  }
  if (sequence.state->error || sequence.is_beam_search()) {
    kv_cache_.release(sequence.blocks);
  } else {
    kv_cache_.release(sequence.blocks, sequence.cached_key(), sequence.prompt_length, sequence.request.retention);
  }
  stop(sequence);
}

std::shared_ptr<RequestState> Scheduler::first_waiting() const {
  const auto request = next_request(/*joins_only=*/false);
  if (waiting_.empty() || (request && request->rank_of_next() < waiting_.front()->rank())) return request;
  return waiting_.front()->state;
}

}  // namespace inflight
