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
#include "engine/cpu/forward.h"
#include "engine/cpu/kv_cache_storage.h"
#include "engine/cpu/weights.h"
#include "engine/engine.h"
#include "engine/model_config.h"
#include "engine/sampler.h"

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
  bool is_copied(CopyHandle) const override { return true; }

 private:
  struct Step {
    std::vector<BlockCopy> copies;  // done first
    std::vector<SequenceSlice> sequences;
    TokenMasks* masks = nullptr;
    StepOutput output;
    std::exception_ptr failure;
    bool is_done = false;
  };

  void check(const StepInput& input);
  void check_slice(const SequenceSlice& slice) const;
  void check_blocks(const SequenceSlice& slice) const;
  void check_sampling(const SequenceSlice& slice, const StepInput& input) const;
  void drive();
  StepOutput run(const Step& step);
  void make_batch(const Step& step);

  const EngineConfig config_;
  const AttentionWindows windows_;
  const Weights weights_;
  ThreadPool pool_;
  KvCacheStorage cache_;
  EngineInfo info_;
  ForwardPass forward_;
  Sampler sampler_;
  Batch batch_;  // of the running step

  std::vector<int32_t> prompt_lengths_;   // by slot
  std::vector<int32_t> previous_tokens_;  // by slot: what it sampled last; kNotSampled until it has
  std::vector<BlockCopy> pending_copies_;
  uint64_t num_checks_ = 0;            // steps that check() has seen
  std::vector<uint64_t> last_checks_;  // by slot: the last of them that held it

  std::mutex mutex_;
  std::condition_variable submitted_;
  std::condition_variable finished_;
  std::map<StepHandle, Step> steps_;  // submitted and not yet waited for
  StepHandle next_to_submit_ = 0;
  StepHandle next_to_run_ = 0;
  bool stopping_ = false;
  std::thread driver_;
};

}  // namespace inflight::cpu
