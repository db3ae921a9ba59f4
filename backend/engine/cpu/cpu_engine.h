#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "common/thread_pool.h"
#include "engine/attention_windows.h"
#include "engine/cpu/block_copier.h"
#include "engine/cpu/forward.h"
#include "engine/cpu/kv_cache_storage.h"
#include "engine/cpu/weights.h"
#include "engine/engine.h"
#include "engine/model_config.h"
#include "engine/sampler.h"
#include "engine/step_check.h"
#include "engine/step_message.h"

namespace inflight::cpu {

// The embedded default: runs on the CPUs that this process may use. Steps are run by a driver thread of
// its own, so that launch() returns at once; it sleeps while there are none.
class CpuEngine : public Engine {
 public:
  // `config` is that of `directory`, whose rank0.safetensors is mapped.
  CpuEngine(const std::filesystem::path& directory, const EngineConfig& config, const EngineOptions& options);
  ~CpuEngine() override;  // lets the running step end and drops the others

  const EngineInfo& info() const override { return info_; }
  StepNumber launch(const StepInput& input) override;
  StepOutput finish() override;
  bool is_copied(StepNumber step) override { return copier_.is_done(step); }

 private:
  // What the driver knows of a slot's sequence.
  struct Slot {
    int32_t prompt_length = 0;
    int32_t length = 0;          // tokens in the KV cache
    int32_t previous_token = 0;  // what it sampled last; kNotSampled until it has
    std::vector<int32_t> block_ids;
    std::optional<Error> failure;  // of its setup, or of a step
  };

  struct Step {
    StepMessage message;
    Buffer<float> returned_logits;  // [max_returned_logits, vocab_size]
    BatchOutput output;
    std::vector<SlotFailure> slot_failures;
    std::exception_ptr failure;
  };

  Step& step(StepNumber number) { return steps_[number % steps_.size()]; }
  void drive();
  void run(StepNumber number);
  void begin(const StepInput& input, StepNumber number);
  void set_up(const SlotSetup& setup);
  void compute(Step& step);
  void make_batch(const StepInput& input, std::vector<SlotFailure>& failures);
  void add_tokens(bool of_prompts);
  void note_sampled(const BatchOutput& output);

  const EngineConfig config_;
  const AttentionWindows windows_;
  const EngineInfo info_;
  const Weights weights_;
  StepCheck step_check_;
  StepNumber num_finished_ = 0;

  // The driver's.
  ThreadPool pool_;
  KvCacheStorage cache_;
  BlockCopier copier_;
  ForwardPass forward_;
  Sampler sampler_;
  std::vector<Slot> slots_;
  Batch batch_;  // of the running step
  std::vector<const SequenceSlice*> in_batch_;  // parallel to batch_.slices

  std::mutex mutex_;
  std::condition_variable launched_;
  std::condition_variable done_;
  // By number of the step: those in flight, and the one finished last, whose output may be looked at.
  std::vector<Step> steps_;
  StepNumber num_launched_ = 0;
  StepNumber num_done_ = 0;
  bool stopping_ = false;
  std::thread driver_;
};

}  // namespace inflight::cpu
