#include "engine/cpu/cpu_engine.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "common/logging.h"
#include "common/rounding.h"
#include "engine/cpu/kv_cache_size.h"

namespace inflight::cpu {
namespace {

constexpr int32_t kNotSampled = -1;
// The driver's threads take all CPUs: there is nothing that a second step could run on.
constexpr int32_t kMaxStepsInFlight = 1;

KvCacheShape cache_shape(const EngineConfig& config) {
  return {config.model.num_hidden_layers, config.model.num_key_value_heads, config.model.head_size,
          config.build.tokens_per_block, config.build.has_bfloat16_kv_cache};
}

EngineInfo make_info(const EngineConfig& config, const AttentionWindows& windows, const KvCacheSize& cache_size,
                     const EngineOptions& options) {
  return {.model_type = config.model.model_type,
          .vocab_size = config.model.vocab_size,
          .max_batch_size = config.build.max_batch_size,
          .max_num_tokens = config.build.max_num_tokens,
          .max_steps_in_flight = options.max_steps_in_flight > 0 ? options.max_steps_in_flight : kMaxStepsInFlight,
          .max_seq_len = config.build.max_seq_len,
          .max_returned_logits = max_returned_logits(config),
          .logits_bytes = config.build.logits_bytes,
          .tokens_per_block = config.build.tokens_per_block,
          .num_blocks = cache_size.num_blocks,
          .num_host_blocks = cache_size.num_host_blocks,
          .kv_bytes_per_block = cache_shape(config).bytes_per_block(),
          .max_beam_width = config.build.max_beam_width,
          .attention_window = windows.largest,
          .sink_tokens = windows.sink_tokens,
          .end_ids = config.model.end_ids,
          .pad_id = config.model.pad_id};
}

}  // namespace

CpuEngine::CpuEngine(const std::filesystem::path& directory, const EngineConfig& config, const EngineOptions& options)
    : config_(config),
      windows_(attention_windows(config, options)),
      info_(make_info(config, windows_,
                      kv_cache_size(directory, config.build, options, cache_shape(config).bytes_per_block()), options)),
      weights_(directory / "rank0.safetensors", config.model),
      step_check_(info_),
      pool_(options.num_threads),
      cache_(cache_shape(config), info_.num_blocks + info_.num_host_blocks),
      copier_(cache_),
      forward_(config_, windows_, weights_, cache_, pool_, select_isa()),
      sampler_(info_.max_batch_size, info_.vocab_size),
      slots_(info_.max_batch_size),
      steps_(info_.max_steps_in_flight + 1) {
  batch_.tokens.reserve(info_.max_num_tokens);
  batch_.slices.reserve(info_.max_batch_size);
  in_batch_.reserve(info_.max_batch_size);
  for (Slot& slot : slots_) slot.block_ids.reserve(divide_up(info_.max_seq_len, info_.tokens_per_block));
  for (Step& step : steps_) {
    step.returned_logits = Buffer<float>(size_t(info_.max_returned_logits) * info_.vocab_size);
  }
  log_info("CPU engine of ", directory.string(), ": ", pool_.size(), " threads, ", isa_name(select_isa()), ", ",
           info_.num_blocks, " KV-cache blocks of ", info_.tokens_per_block, " tokens, ", info_.num_host_blocks,
           " in the host tier");
  driver_ = std::thread([this] { drive(); });
}

CpuEngine::~CpuEngine() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  launched_.notify_one();
  driver_.join();
}

StepNumber CpuEngine::launch(const StepInput& input) {
  if (num_launched_ - num_finished_ == static_cast<StepNumber>(info_.max_steps_in_flight)) {
    throw_error(ErrorCode::kInvalidArgument, info_.max_steps_in_flight,
                " steps are in flight; this engine takes no more");
  }
  const StepNumber number = num_launched_ + 1;
  step(number).message.assign(
      input);  // before the check, which remembers the step: only this may fail for want of memory
  step_check_.check(input);
  {
    std::lock_guard lock(mutex_);
    num_launched_ = number;
  }
  launched_.notify_one();
  return number;
}

StepOutput CpuEngine::finish() {
  if (num_finished_ == num_launched_) throw_error(ErrorCode::kInvalidArgument, "no step is in flight");
  const StepNumber number = num_finished_ + 1;
  {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return num_done_ >= number; });
  }
  num_finished_ = number;
  Step& step = this->step(number);
  if (step.failure) std::rethrow_exception(std::exchange(step.failure, nullptr));
  return {step.output.tokens,
          step.output.top_log_probs,
          {step.returned_logits.data(), static_cast<size_t>(step.output.num_logits)},
          step.slot_failures};
}

void CpuEngine::drive() {
  for (StepNumber number = 1;; ++number) {
    {
      std::unique_lock lock(mutex_);
      launched_.wait(lock, [&] { return stopping_ || num_launched_ >= number; });
      if (stopping_) return;
    }
    run(number);
    {
      std::lock_guard lock(mutex_);
      num_done_ = number;
    }
    done_.notify_one();
  }
}

void CpuEngine::run(StepNumber number) {
  Step& step = this->step(number);
  try {
    begin(step.message.input(), number);
  } catch (const std::exception& exception) {  // std::bad_alloc: what slots and blocks hold is not what it should be
    step.failure =
        std::make_exception_ptr(Error(ErrorCode::kEngineLost, concat("a step could not begin: ", exception.what())));
    return;
  }
  try {
    compute(step);
  } catch (const Error&) {
    step.failure = std::current_exception();
  } catch (const std::exception& exception) {
    step.failure = std::make_exception_ptr(Error(ErrorCode::kInternal, concat("a step failed: ", exception.what())));
  }
}

// What takes effect even if the step fails.
void CpuEngine::begin(const StepInput& input, StepNumber number) {
  copier_.start(input.copies, number);
  for (const SlotSetup& setup : input.setups) set_up(setup);
  for (const SequenceSlice& slice : input.slices) {
    auto& block_ids = slots_[slice.slot].block_ids;
    block_ids.insert(block_ids.end(), slice.new_block_ids.begin(), slice.new_block_ids.end());
  }
}

void CpuEngine::set_up(const SlotSetup& setup) {
  Slot& slot = slots_[setup.slot];
  slot.block_ids.clear();
  slot.failure.reset();
  try {
    if (setup.parent >= 0) {
      const Slot& parent = slots_[setup.parent];
      slot.prompt_length = parent.prompt_length;
      slot.length = parent.length;
      slot.previous_token = parent.previous_token;
      slot.block_ids.assign(parent.block_ids.begin(), parent.block_ids.begin() + setup.num_parent_blocks);
      slot.failure = parent.failure;
      sampler_.fork(setup.parent, setup.slot);
    } else {
      slot.prompt_length = static_cast<int32_t>(setup.prompt.size());
      slot.length = 0;
      slot.previous_token = kNotSampled;
      sampler_.configure(setup.slot, setup.sampling, setup.prompt, setup.generated);
    }
  } catch (const Error& error) {
    slot.failure = error;
  } catch (const std::exception& exception) {
    slot.failure = Error(ErrorCode::kInternal, concat("a sequence could not begin: ", exception.what()));
  }
}

void CpuEngine::compute(Step& step) {
  const StepInput input = step.message.input();
  step.output.tokens.clear();
  step.output.top_log_probs.clear();
  step.output.num_logits = 0;
  step.slot_failures.clear();
  make_batch(input, step.slot_failures);
  if (batch_.tokens.empty()) return;
  uint64_t last_copy = 0;
  for (const BatchSlice& slice : batch_.slices) {
    last_copy = std::max(last_copy, copier_.last_touching(slice.block_ids));
    if (slice.samples) slots_[slice.slot].previous_token = kNotSampled;  // until the step has succeeded
  }
  copier_.wait(last_copy);
  forward_.run(batch_, sampler_, step.returned_logits.data(), step.output);
  note_sampled(step.output);
}

void CpuEngine::make_batch(const StepInput& input, std::vector<SlotFailure>& failures) {
  batch_.tokens.clear();
  batch_.slices.clear();
  in_batch_.clear();
  for (const SequenceSlice& slice : input.slices) {
    Slot& slot = slots_[slice.slot];
    const bool goes_on = slice.tokens.front() == kPreviousToken;
    if (goes_on && slot.previous_token == kNotSampled && !slot.failure) {
      slot.failure = Error(ErrorCode::kInternal, "the step that should have sampled the previous token failed");
    }
    if (slot.failure) {
      failures.push_back({slice.slot, *slot.failure});
      continue;
    }
    batch_.slices.push_back({.slot = slice.slot,
                             .num_tokens = static_cast<int32_t>(slice.tokens.size()),
                             .past_length = goes_on ? slot.length : slice.past_length,
                             .prompt_length = slot.prompt_length,
                             .block_ids = slot.block_ids,
                             .samples = slice.samples,
                             .num_drafts = slice.num_drafts,
                             .returned_logits = slice.returned_logits,
                             .mask = slice.mask});
    in_batch_.push_back(&slice);
  }
  add_tokens(/*of_prompts=*/true);
  add_tokens(/*of_prompts=*/false);
}

// The tokens of the slices whose first token is of a prompt, or of the others.
void CpuEngine::add_tokens(bool of_prompts) {
  for (size_t i = 0; i < in_batch_.size(); ++i) {
    BatchSlice& slice = batch_.slices[i];
    if ((slice.past_length < slice.prompt_length) != of_prompts) continue;
    slice.first_token = static_cast<int32_t>(batch_.tokens.size());
    int32_t position = slice.past_length;
    for (const int32_t token : in_batch_[i]->tokens) {
      const int32_t id = token == kPreviousToken ? slots_[slice.slot].previous_token : token;
      batch_.tokens.push_back({id, position++, static_cast<int32_t>(i)});
    }
  }
}

void CpuEngine::note_sampled(const BatchOutput& output) {
  size_t next = 0;
  for (const BatchSlice& slice : batch_.slices) {
    Slot& slot = slots_[slice.slot];
    slot.length = slice.past_length + slice.num_tokens - slice.num_drafts;
    if (!slice.samples) continue;
    const size_t first = next;
    while (next < output.tokens.size() && output.tokens[next].slot == slice.slot) ++next;
    if (sampler_.num_candidates(slice.slot) > 0) continue;
    slot.length += static_cast<int32_t>(next - first) - 1;  // drafts that were accepted
    slot.previous_token = output.tokens[next - 1].token;
  }
}

}  // namespace inflight::cpu
