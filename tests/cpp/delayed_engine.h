#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/step_message.h"

namespace inflight::test {

// Runs the steps of another engine as a device does that is not the host: each message goes there as bytes, several may
// be under way, and what a step gave is seen some time after it was computed.
class DelayedEngine final : public Engine {
 public:
  DelayedEngine(std::unique_ptr<Engine> engine, int32_t max_steps_in_flight, std::chrono::microseconds delay)
      : engine_(std::move(engine)), info_(engine_->info()), delay_(delay) {
    info_.max_steps_in_flight = max_steps_in_flight;
    thread_ = std::thread([this] { run(); });
  }

  ~DelayedEngine() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  const EngineInfo& info() const override { return info_; }

  StepNumber launch(const StepInput& input) override {
    std::vector<std::byte> bytes;
    write_step(input, bytes);
    std::lock_guard lock(mutex_);
    if (num_launched_ - num_finished_ == static_cast<StepNumber>(info_.max_steps_in_flight)) {
      throw_error(ErrorCode::kInternal, "more than ", info_.max_steps_in_flight, " steps in flight");
    }
    messages_.push_back(std::move(bytes));
    ++num_launched_;
    most_in_flight = std::max<int64_t>(most_in_flight, static_cast<int64_t>(num_launched_ - num_finished_));
    changed_.notify_all();
    return num_launched_;
  }

  StepOutput finish() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !outputs_.empty(); });
    finished_ = std::move(outputs_.front());
    outputs_.pop_front();
    ++num_finished_;
    lock.unlock();
    std::this_thread::sleep_until(finished_.seen_from);
    if (finished_.failure) std::rethrow_exception(finished_.failure);
    return {finished_.tokens, finished_.top_log_probs, finished_.logits, finished_.failures};
  }

  bool is_copied(StepNumber step) override { return num_copied_ >= step; }

  std::atomic<int64_t> most_in_flight{0};

 private:
  struct Output {
    std::chrono::steady_clock::time_point seen_from;
    std::vector<SampledToken> tokens;
    std::vector<TokenLogProb> top_log_probs;
    std::vector<float> logits;
    std::vector<SlotFailure> failures;
    std::exception_ptr failure;
  };

  void run() {
    StepMessage message;
    std::unique_lock lock(mutex_);
    for (StepNumber step = 1;; ++step) {
      changed_.wait(lock, [&] { return stopping_ || !messages_.empty(); });
      if (stopping_) return;
      const std::vector<std::byte> bytes = std::move(messages_.front());
      messages_.pop_front();
      lock.unlock();
      Output output;
      try {
        message.read(bytes);
        output = run(message.input());
      } catch (...) {
        output.failure = std::current_exception();
      }
      output.seen_from = std::chrono::steady_clock::now() + delay_;
      num_copied_ = step;
      lock.lock();
      outputs_.push_back(std::move(output));
      changed_.notify_all();
    }
  }

  Output run(const StepInput& input) {
    const StepNumber step = engine_->launch(input);
    const StepOutput output = engine_->finish();
    while (!engine_->is_copied(step)) std::this_thread::yield();
    const auto copy = [](const auto& values) { return std::vector(values.begin(), values.end()); };
    return {{}, copy(output.tokens), copy(output.top_log_probs), copy(output.logits), copy(output.failures), nullptr};
  }

  const std::unique_ptr<Engine> engine_;
  EngineInfo info_;
  const std::chrono::microseconds delay_;
  Output finished_;
  std::atomic<StepNumber> num_copied_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<std::byte>> messages_;
  std::deque<Output> outputs_;
  StepNumber num_launched_ = 0;
  StepNumber num_finished_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace inflight::test
