#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "engine/engine.h"
#include "engine/step_message.h"
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

  StepNumber launch(const StepInput& input) override {
    ++steps;
    before_step();
    try {
      step_check_.check(input);
    } catch (const Error& error) {
      on_violation(error.what());
      throw;
    }
    if (std::exchange(fails_launch, false)) throw_error(ErrorCode::kInternal, kInjected);
    const StepNumber step = engine_->launch(through_bytes(input));
    if (std::exchange(fails_finish, false)) failing_.insert(step);
    return step;
  }

  StepOutput finish() override {
    const bool fails = failing_.erase(++num_finished_) > 0;
    const StepOutput output = engine_->finish();
    if (fails) throw_error(ErrorCode::kInternal, kInjected);
    return output;
  }

  bool is_copied(StepNumber step) override { return ++polls_[step] > copy_delay_ && engine_->is_copied(step); }

  std::function<void()> before_step;                          // from the thread that launches
  std::function<void(const std::string& what)> on_violation;  // a step that no engine could be asked to run
  std::atomic<int64_t> steps{0};
  bool fails_launch = false;  // of the next step; set by before_step
  bool fails_finish = false;

 private:
  StepInput through_bytes(const StepInput& input) {
    std::vector<std::byte> bytes, again;
    write_step(input, bytes);
    message_.read(bytes);
    write_step(message_.input(), again);
    if (bytes != again) on_violation("a step is another one after its way through bytes");
    return message_.input();
  }

  static EngineInfo limited(EngineInfo info, const TraceOptions& options) {
    if (options.max_batch_size > 0) info.max_batch_size = std::min(info.max_batch_size, options.max_batch_size);
    if (options.max_num_tokens > 0) info.max_num_tokens = std::min(info.max_num_tokens, options.max_num_tokens);
    return info;
  }

  const std::unique_ptr<Engine> engine_;
  const EngineInfo info_;
  StepCheck step_check_;
  StepMessage message_;
  std::set<StepNumber> failing_;
  StepNumber num_finished_ = 0;
  const int32_t copy_delay_;
  std::map<StepNumber, int32_t> polls_;
};

}  // namespace inflight::test
