#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "engine/engine.h"
#include "step_check.h"
#include "trace.h"

namespace inflight::test {

inline constexpr char kInjected[] = "a fault that the trace asks for";

// An engine with smaller limits, slower copies and faults. Every step passes StepCheck.
class TraceEngine final : public Engine {
 public:
  TraceEngine(std::unique_ptr<Engine> engine, const TraceOptions& options)
      : engine_(std::move(engine)),
        info_(limited(engine_->info(), options)),
        step_check_(info_),
        copy_delay_(options.copy_delay) {}

  const EngineInfo& info() const override { return info_; }

  void configure(int32_t slot, const SamplingConfig& config, std::span<const int32_t> prompt,
                 std::span<const int32_t> generated) override {
    engine_->configure(slot, config, prompt, generated);
  }

  StepHandle submit(const StepInput& input) override {
    ++steps;
    before_step();
    try {
      step_check_.check(input);
    } catch (const Error& error) {
      on_violation(error.what());
      throw;
    }
    if (std::exchange(fails_submit, false)) throw_error(ErrorCode::kInternal, kInjected);
    const StepHandle step = engine_->submit(input);
    if (std::exchange(fails_wait, false)) failing_.insert(step);
    return step;
  }

  StepOutput wait(StepHandle step) override {
    StepOutput output = engine_->wait(step);
    if (failing_.erase(step) > 0) throw_error(ErrorCode::kInternal, kInjected);
    return output;
  }

  CopyHandle copy_blocks(std::span<const BlockCopy> copies) override { return engine_->copy_blocks(copies); }

  bool is_copied(CopyHandle copies) const override {
    return ++polls_[copies] > copy_delay_ && engine_->is_copied(copies);
  }

  std::function<void()> before_step;                          // from the thread that submits
  std::function<void(const std::string& what)> on_violation;  // a step that no engine could be asked to run
  std::atomic<int64_t> steps{0};
  bool fails_submit = false;  // of the next step; set by before_step
  bool fails_wait = false;

 private:
  static EngineInfo limited(EngineInfo info, const TraceOptions& options) {
    if (options.max_batch_size > 0) info.max_batch_size = std::min(info.max_batch_size, options.max_batch_size);
    if (options.max_num_tokens > 0) info.max_num_tokens = std::min(info.max_num_tokens, options.max_num_tokens);
    return info;
  }

  const std::unique_ptr<Engine> engine_;
  const EngineInfo info_;
  StepCheck step_check_;
  std::set<StepHandle> failing_;
  const int32_t copy_delay_;
  mutable std::map<CopyHandle, int32_t> polls_;
};

}  // namespace inflight::test
