#include "engine/cpu/cpu_engine.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "common/logging.h"
#include "engine/cpu/kv_cache_size.h"

namespace inflight::cpu {
namespace {

constexpr int32_t kNotSampled = -1;

KvCacheShape cache_shape(const EngineConfig& config) {
  return {config.model.num_hidden_layers, config.model.num_key_value_heads, config.model.head_size,
          config.build.tokens_per_block, config.build.has_bfloat16_kv_cache};
}

EngineInfo make_info(const EngineConfig& config, const AttentionWindows& windows, const KvCacheSize& cache_size) {
  return {.model_type = config.model.model_type,
          .vocab_size = config.model.vocab_size,
          .max_batch_size = config.build.max_batch_size,
          .max_num_tokens = config.build.max_num_tokens,
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
                      kv_cache_size(directory, config.build, options, cache_shape(config).bytes_per_block()))),
      weights_(directory / "rank0.safetensors", config.model),
      pool_(options.num_threads),
      cache_(cache_shape(config), info_.num_blocks + info_.num_host_blocks),
      copier_(cache_),
      forward_(config_, windows_, weights_, cache_, pool_, select_isa()),
      sampler_(info_.max_batch_size, info_.vocab_size),
      step_check_(info_),
      prompt_lengths_(info_.max_batch_size, 0),
      previous_tokens_(info_.max_batch_size, kNotSampled) {
  batch_.rows.reserve(info_.max_num_tokens);
  batch_.sequences.reserve(info_.max_batch_size);
  spare_steps_.push_back(take_spare_step());
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
  submitted_.notify_one();
  driver_.join();
}

void CpuEngine::configure(int32_t slot, const SamplingConfig& config, std::span<const int32_t> prompt,
                          std::span<const int32_t> generated) {
  step_check_.configure(slot, config);
  sampler_.configure(slot, config, prompt, generated);
  prompt_lengths_[slot] = static_cast<int32_t>(prompt.size());
  previous_tokens_[slot] = kNotSampled;
}

CopyHandle CpuEngine::copy_blocks(std::span<const BlockCopy> copies) {
  step_check_.check(copies);
  return copier_.start(copies, next_to_submit_);
}

bool CpuEngine::is_copied(CopyHandle copies) const { return copier_.is_done(copies); }

StepHandle CpuEngine::submit(const StepInput& input) {
  step_check_.check(input);
  Steps::node_type node = take_spare_step();
  Step& step = node.mapped();
  step.sequences.assign(input.sequences.begin(), input.sequences.end());
  step.masks = input.masks;
  step.last_copy = 0;
  for (const SequenceSlice& slice : input.sequences) {
    step.last_copy = std::max(step.last_copy, copier_.last_touching(slice.block_ids));
  }
  StepHandle handle;
  {
    std::lock_guard lock(mutex_);
    handle = next_to_submit_++;
    node.key() = handle;
    steps_.insert(std::move(node));
  }
  submitted_.notify_one();
  return handle;
}

StepOutput CpuEngine::wait(StepHandle handle) {
  std::unique_lock lock(mutex_);
  const auto it = steps_.find(handle);
  if (it == steps_.end()) {
    throw_error(ErrorCode::kInvalidArgument, "step ", handle, " was never submitted, or has been waited for");
  }
  finished_.wait(lock, [&] { return it->second.is_done; });
  Steps::node_type& node = spare_steps_.emplace_back(steps_.extract(it));
  Step& step = node.mapped();
  step.is_done = false;
  if (step.failure) std::rethrow_exception(std::exchange(step.failure, nullptr));
  return std::exchange(step.output, {});
}

// A step's memory, from one that was waited for if there is such.
CpuEngine::Steps::node_type CpuEngine::take_spare_step() {
  if (spare_steps_.empty()) {
    Steps fresh;
    fresh[0].returned_logits = Buffer<float>(size_t(info_.max_returned_logits) * info_.vocab_size);
    return fresh.extract(fresh.begin());
  }
  Steps::node_type node = std::move(spare_steps_.back());
  spare_steps_.pop_back();
  return node;
}

void CpuEngine::drive() {
  for (;;) {
    Step* step;
    StepHandle handle;
    {
      std::unique_lock lock(mutex_);
      submitted_.wait(lock, [&] { return stopping_ || next_to_run_ < next_to_submit_; });
      if (stopping_) return;
      handle = next_to_run_++;
      step = &steps_.at(handle);
    }
    try {
      copier_.wait(step->last_copy);
      step->output = run(*step);
    } catch (const Error&) {
      step->failure = std::current_exception();
    } catch (const std::exception& exception) {
      step->failure = std::make_exception_ptr(Error(ErrorCode::kInternal, concat("a step failed: ", exception.what())));
    } catch (...) {  // of the caller's TokenMasks
      step->failure = std::make_exception_ptr(Error(ErrorCode::kInternal, "a step failed for an unknown reason"));
    }
    copier_.set_steps_done(handle + 1);
    {
      std::lock_guard lock(mutex_);
      step->is_done = true;
      finished_.notify_all();  // under the lock: after it, wait() may have taken the step away
    }
  }
}

StepOutput CpuEngine::run(const Step& step) {
  make_batch(step);
  if (batch_.rows.empty()) return {};
  for (const SequenceSlice& slice : step.sequences) {
    if (slice.samples) previous_tokens_[slice.slot] = kNotSampled;  // until the step has succeeded
  }
  StepOutput output = forward_.run(batch_, sampler_, step.returned_logits.data());
  for (const SampledToken& sampled : output.tokens) {
    if (sampler_.num_candidates(sampled.slot) == 0) previous_tokens_[sampled.slot] = sampled.token;
  }
  return output;
}

void CpuEngine::make_batch(const Step& step) {
  batch_.masks = step.masks;
  batch_.rows.clear();
  batch_.sequences.clear();
  for (const SequenceSlice& slice : step.sequences) {
    batch_.sequences.push_back({.slot = slice.slot,
                                .num_tokens = static_cast<int32_t>(slice.tokens.size()),
                                .past_length = slice.past_length,
                                .prompt_length = prompt_lengths_[slice.slot],
                                .block_ids = slice.block_ids,
                                .samples = slice.samples,
                                .num_drafts = slice.num_drafts,
                                .returned_logits = slice.returned_logits,
                                .is_masked = slice.is_masked});
  }
  add_rows(step, /*of_prompts=*/true);
  add_rows(step, /*of_prompts=*/false);
}

// The rows of the sequences whose first token is of their prompt, or of the others.
void CpuEngine::add_rows(const Step& step, bool of_prompts) {
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    const SequenceSlice& slice = step.sequences[i];
    BatchSequence& sequence = batch_.sequences[i];
    if ((sequence.past_length < sequence.prompt_length) != of_prompts) continue;
    sequence.first_row = static_cast<int32_t>(batch_.rows.size());
    int32_t position = slice.past_length;
    for (const int32_t token : slice.tokens) {
      const int32_t id = token == kPreviousToken ? previous_tokens_[slice.slot] : token;
      if (id == kNotSampled) {
        throw_error(ErrorCode::kInvalidArgument, "slot ", slice.slot,
                    " has no previous token: no step sampled one for it");
      }
      batch_.rows.push_back({id, position++, static_cast<int32_t>(i)});
    }
  }
}

}  // namespace inflight::cpu
