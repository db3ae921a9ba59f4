#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <map>
#include <mutex>
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

namespace inflight::cpu {

// The embedded default: runs on the CPUs that this process may use. Steps are run by a driver thread of
// its own, so that submit() returns at once; it sleeps while there are none.
class CpuEngine : public Engine {
 public:
  // `config` is that of `directory`, whose rank0.safetensors is mapped.
  CpuEngine(const std::filesystem::path& directory, const EngineConfig& config, const EngineOptions& options);
  ~CpuEngine() override;  // lets the running step end and drops the others

  const EngineInfo& info() const override { return info_; }
  void configure(int32_t slot, const SamplingConfig& config, std::span<const int32_t> prompt,
                 std::span<const int32_t> generated) override;
  StepHandle submit(const StepInput& input) override;
  StepOutput wait(StepHandle step) override;
  CopyHandle copy_blocks(std::span<const BlockCopy> copies) override;
  bool is_copied(CopyHandle copies) const override;

 private:
  struct Step {
    std::vector<SequenceSlice> sequences;
    TokenMasks* masks = nullptr;
    CopyHandle last_copy = 0;  // must be done first
    Buffer<float> returned_logits;  // [max_returned_logits, vocab_size], which `output` points at
    StepOutput output;
    std::exception_ptr failure;
    bool is_done = false;
  };

  using Steps = std::map<StepHandle, Step>;

  Steps::node_type take_spare_step();
  void drive();
  StepOutput run(const Step& step);
  void make_batch(const Step& step);
  void add_rows(const Step& step, bool of_prompts);

  const EngineConfig config_;
  const AttentionWindows windows_;
  const EngineInfo info_;
  const Weights weights_;
  ThreadPool pool_;
  KvCacheStorage cache_;
  BlockCopier copier_;
  ForwardPass forward_;
  Sampler sampler_;
  StepCheck step_check_;
  Batch batch_;  // of the running step

  std::vector<int32_t> prompt_lengths_;   // by slot
  std::vector<int32_t> previous_tokens_;  // by slot: what it sampled last; kNotSampled until it has

  std::mutex mutex_;
  std::condition_variable submitted_;
  std::condition_variable finished_;
  Steps steps_;  // submitted and not yet waited for
  std::vector<Steps::node_type> spare_steps_;  // waited for; their memory serves others
  StepHandle next_to_submit_ = 0;
  StepHandle next_to_run_ = 0;
  bool stopping_ = false;
  std::thread driver_;
};

}  // namespace inflight::cpu
