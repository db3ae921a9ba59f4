#include "engine/cpu/cpu_engine.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "common/logging.h"
#include "common/memory_limit.h"
#include "common/rounding.h"

namespace inflight::cpu {
namespace {

constexpr int32_t kNotSampled = -1;

int32_t count_blocks(const std::filesystem::path& directory, const BuildConfig& build, const EngineOptions& options,
                     int64_t bytes_per_block) {
  int64_t blocks = build.kv_cache_bytes / bytes_per_block;
  if (options.max_tokens_in_kv_cache) {
    blocks = *options.max_tokens_in_kv_cache / build.tokens_per_block;
    if (blocks < 1) {
      throw_error(ErrorCode::kInvalidArgument, "max_tokens_in_paged_kv_cache is ", *options.max_tokens_in_kv_cache,
                  "; it must hold at least one block of ", build.tokens_per_block, " tokens");
    }
  }
  if (blocks < 1) {
    throw_error(ErrorCode::kInvalidArgument, (directory / "config.json").string(), ": build_config.kv_cache_bytes is ",
                build.kv_cache_bytes, ", but one block of ", build.tokens_per_block, " tokens takes ", bytes_per_block,
                " bytes; rebuild with a larger --kv-cache-memory");
  }
  // Memory that is reserved untouched never fails for want of it, only later: refuse here.
  const int64_t available_bytes = memory_limit();
  if (blocks > available_bytes / bytes_per_block || blocks > INT32_MAX) {
    throw_error(ErrorCode::kUnavailable, directory.string(), ": a KV cache of ", blocks, " blocks of ", bytes_per_block,
                " bytes does not fit into the ", available_bytes,
                " bytes of memory that this machine or its control groups allow; set a smaller max_tokens_in_paged_kv_cache, "
                "or rebuild with a smaller --kv-cache-memory");
  }
  return static_cast<int32_t>(blocks);
}

KvCacheStorage make_cache(const std::filesystem::path& directory, const EngineConfig& config,
                          const EngineOptions& options) {
  const KvCacheShape shape{config.model.num_hidden_layers, config.model.num_key_value_heads, config.model.head_size,
                           config.build.tokens_per_block};
  return {shape, count_blocks(directory, config.build, options, shape.bytes_per_block())};
}

EngineInfo make_info(const EngineConfig& config, const AttentionWindows& windows, const KvCacheStorage& cache) {
  return {.model_type = config.model.model_type,
          .vocab_size = config.model.vocab_size,
          .max_batch_size = config.build.max_batch_size,
          .max_num_tokens = config.build.max_num_tokens,
          .max_seq_len = config.build.max_seq_len,
          .tokens_per_block = config.build.tokens_per_block,
          .num_blocks = cache.num_blocks(),
          .kv_bytes_per_block = cache.shape().bytes_per_block(),
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
      weights_(directory / "rank0.safetensors", config.model),
      pool_(options.num_threads),
      cache_(make_cache(directory, config, options)),
      info_(make_info(config, windows_, cache_)),
      forward_(config_, windows_, weights_, cache_, pool_, select_isa()),
      sampler_(info_.max_batch_size, info_.vocab_size),
      prompt_lengths_(info_.max_batch_size, 0),
      previous_tokens_(info_.max_batch_size, kNotSampled),
      last_checks_(info_.max_batch_size, 0) {
  batch_.rows.reserve(info_.max_num_tokens);
  batch_.sequences.reserve(info_.max_batch_size);
  log_info("CPU engine of ", directory.string(), ": ", pool_.size(), " threads, ", isa_name(select_isa()), ", ",
           info_.num_blocks, " KV-cache blocks of ", info_.tokens_per_block, " tokens");
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
  if (slot < 0 || slot >= info_.max_batch_size) {
    throw_error(ErrorCode::kInvalidArgument, "slot is ", slot, "; this engine has ", info_.max_batch_size, " slots");
  }
  sampler_.configure(slot, config, prompt, generated);
  prompt_lengths_[slot] = static_cast<int32_t>(prompt.size());
  previous_tokens_[slot] = kNotSampled;
}

CopyHandle CpuEngine::copy_blocks(std::span<const BlockCopy> copies) {
  for (const BlockCopy& copy : copies) {
    if (std::min(copy.source, copy.destination) < 0 || std::max(copy.source, copy.destination) >= info_.num_blocks) {
      throw_error(ErrorCode::kInvalidArgument, "cannot copy block ", copy.source, " to ", copy.destination,
                  "; this engine has ", info_.num_blocks, " blocks");
    }
  }
  pending_copies_.insert(pending_copies_.end(), copies.begin(), copies.end());
  return 0;
}

StepHandle CpuEngine::submit(const StepInput& input) {
  check(input);
  Step step;
  step.copies = std::exchange(pending_copies_, {});
  step.sequences.assign(input.sequences.begin(), input.sequences.end());
  step.masks = input.masks;
  StepHandle handle;
  {
    std::lock_guard lock(mutex_);
    handle = next_to_submit_++;
    steps_.emplace(handle, std::move(step));
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
  Step step = std::move(steps_.extract(it).mapped());
  if (step.failure) std::rethrow_exception(step.failure);
  return std::move(step.output);
}

// Rejects what would touch memory that is not the step's.
void CpuEngine::check(const StepInput& input) {
  if (input.sequences.size() > static_cast<size_t>(info_.max_batch_size)) {
    throw_error(ErrorCode::kInvalidArgument, "a step of ", input.sequences.size(), " sequences; this engine takes ",
                info_.max_batch_size);
  }
  ++num_checks_;
  size_t num_tokens = 0;
  for (const SequenceSlice& slice : input.sequences) {
    check_slice(slice);
    check_blocks(slice);
    check_sampling(slice, input);
    num_tokens += slice.tokens.size();
    if (std::exchange(last_checks_[slice.slot], num_checks_) == num_checks_) {
      throw_error(ErrorCode::kInvalidArgument, "slot ", slice.slot, " is in the step twice");
    }
  }
  if (num_tokens > static_cast<size_t>(info_.max_num_tokens)) {
    throw_error(ErrorCode::kInvalidArgument, "a step of ", num_tokens, " tokens; this engine takes ",
                info_.max_num_tokens);
  }
}

void CpuEngine::check_slice(const SequenceSlice& slice) const {
  const auto fail = [&](const auto&... message) {
    throw_error(ErrorCode::kInvalidArgument, "slot ", slice.slot, ": ", message...);
  };
  if (slice.slot < 0 || slice.slot >= info_.max_batch_size) {
    fail("this engine has slots 0 to ", info_.max_batch_size - 1);
  }
  if (slice.tokens.empty()) fail("no tokens");
  const int64_t length = int64_t{slice.past_length} + static_cast<int64_t>(slice.tokens.size());
  if (slice.past_length < 0 || length > info_.max_seq_len) {
    fail("past_length is ", slice.past_length, " with ", slice.tokens.size(), " tokens; max_seq_len is ",
         info_.max_seq_len);
  }
  if (static_cast<int64_t>(slice.block_ids.size()) * info_.tokens_per_block < length) {
    fail(slice.block_ids.size(), " blocks do not hold ", length, " tokens");
  }
  for (size_t i = 0; i < slice.tokens.size(); ++i) {
    const int32_t token = slice.tokens[i];
    const bool is_valid = (token >= 0 && token < info_.vocab_size) || (token == kPreviousToken && i == 0);
    if (!is_valid) fail("token id ", token, "; the vocabulary has ", info_.vocab_size);
  }
}

// Blocks may be missing only between the sink tokens and the window of the slice's first token.
void CpuEngine::check_blocks(const SequenceSlice& slice) const {
  const int64_t window = info_.attention_window > 0 ? info_.attention_window : info_.max_seq_len;
  const int64_t freed_end = (slice.past_length - window + 1) / info_.tokens_per_block;
  const int64_t freed_begin = divide_up(info_.sink_tokens, info_.tokens_per_block);
  for (size_t i = 0; i < slice.block_ids.size(); ++i) {
    const int32_t block = slice.block_ids[i];
    if (block >= 0 && block < info_.num_blocks) continue;
    if (block == kFreedBlock && static_cast<int64_t>(i) >= freed_begin && static_cast<int64_t>(i) < freed_end) continue;
    if (block == kFreedBlock) {
      throw_error(ErrorCode::kInvalidArgument, "slot ", slice.slot, ": block_ids[", i, "] is freed, but some layer of ",
                  "the token at position ", slice.past_length, " sees it");
    }
    throw_error(ErrorCode::kInvalidArgument, "slot ", slice.slot, ": block ", block, "; steps of this engine take 0 to ",
                info_.num_blocks - 1);
  }
}

void CpuEngine::check_sampling(const SequenceSlice& slice, const StepInput& input) const {
  const auto fail = [&](const auto&... message) {
    throw_error(ErrorCode::kInvalidArgument, "slot ", slice.slot, ": ", message...);
  };
  if (slice.num_drafts < 0 || slice.num_drafts >= static_cast<int64_t>(slice.tokens.size())) {
    fail("num_drafts is ", slice.num_drafts, "; with ", slice.tokens.size(), " tokens it must be in [0, ",
         slice.tokens.size() - 1, "]");
  }
  if (slice.num_drafts > 0 && !slice.samples) fail("drafts in a slice that does not sample");
  if (slice.num_drafts > 0 && slice.is_masked) fail("drafts in a masked slice");
  if (slice.num_drafts > 0 && sampler_.num_candidates(slice.slot) > 0) fail("drafts in a slot of a beam");
  if (slice.is_masked && input.masks == nullptr) fail("a masked slice in a step without masks");
}

void CpuEngine::drive() {
  for (;;) {
    Step* step;
    {
      std::unique_lock lock(mutex_);
      submitted_.wait(lock, [&] { return stopping_ || next_to_run_ < next_to_submit_; });
      if (stopping_) return;
      step = &steps_.at(next_to_run_++);
    }
    try {
      step->output = run(*step);
    } catch (const Error&) {
      step->failure = std::current_exception();
    } catch (const std::exception& exception) {
      step->failure = std::make_exception_ptr(Error(ErrorCode::kInternal, concat("a step failed: ", exception.what())));
    } catch (...) {  // of the caller's TokenMasks
      step->failure = std::make_exception_ptr(Error(ErrorCode::kInternal, "a step failed for an unknown reason"));
    }
    {
      std::lock_guard lock(mutex_);
      step->is_done = true;
      finished_.notify_all();  // under the lock: after it, wait() may have taken the step away
    }
  }
}

StepOutput CpuEngine::run(const Step& step) {
  for (const BlockCopy& copy : step.copies) cache_.copy_block(copy.source, copy.destination);
  make_batch(step);
  if (batch_.rows.empty()) return {};
  for (const SequenceSlice& slice : step.sequences) {
    if (slice.samples) previous_tokens_[slice.slot] = kNotSampled;  // until the step has succeeded
  }
  StepOutput output = forward_.run(batch_, sampler_);
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
    const int32_t sequence = static_cast<int32_t>(batch_.sequences.size());
    batch_.sequences.push_back({.slot = slice.slot,
                                .first_row = static_cast<int32_t>(batch_.rows.size()),
                                .num_tokens = static_cast<int32_t>(slice.tokens.size()),
                                .past_length = slice.past_length,
                                .prompt_length = prompt_lengths_[slice.slot],
                                .block_ids = slice.block_ids,
                                .samples = slice.samples,
                                .num_drafts = slice.num_drafts,
                                .returned_logits = slice.returned_logits,
                                .is_masked = slice.is_masked});
    int32_t position = slice.past_length;
    for (const int32_t token : slice.tokens) {
      const int32_t id = token == kPreviousToken ? previous_tokens_[slice.slot] : token;
      if (id == kNotSampled) {
        throw_error(ErrorCode::kInvalidArgument, "slot ", slice.slot,
                    " has no previous token: no step sampled one for it");
      }
      batch_.rows.push_back({id, position++, sequence});
    }
  }
}

}  // namespace inflight::cpu
