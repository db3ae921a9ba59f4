// What of an engine's own rate passes through the batch manager: a fake engine takes 4 ms for a step, whatever is in
// it, and shows its results 1 ms later, as a GPU that is waited for. Streamed responses go to a callback that does
// nothing.
//
//   step_pipeline_benchmark [SECONDS]
//
// Prints JSON, a row for each batch size and number of steps in flight. "share": steps a second of the 250 that the
// engine can do. "loop_us": CPU time of the batch manager's loop thread for a step, without the engine's calls.

#include <time.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "batch_manager/batch_manager.h"

namespace inflight {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr std::chrono::microseconds kStep{4000};
constexpr std::chrono::microseconds kDelay{1000};
constexpr int32_t kVocabSize = 32000;
constexpr int32_t kMaxSeqLen = 1 << 16;
constexpr int kNumWarmUpSteps = 50;

double thread_cpu_us() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return 1e6 * static_cast<double>(time.tv_sec) + 1e-3 * static_cast<double>(time.tv_nsec);
}

// A timeline: a step begins when it is launched and the one before has ended.
class TimelineEngine final : public Engine {
 public:
  TimelineEngine(int32_t batch_size, int32_t max_steps_in_flight) {
    info_.model_type = "llama";
    info_.vocab_size = kVocabSize;
    info_.max_batch_size = batch_size;
    info_.max_num_tokens = std::max(batch_size, 256);
    info_.max_steps_in_flight = max_steps_in_flight;
    info_.max_seq_len = kMaxSeqLen;
    info_.tokens_per_block = 64;
    info_.num_blocks = (batch_size + 1) * kMaxSeqLen / info_.tokens_per_block;
    info_.kv_bytes_per_block = 1;
    info_.pad_id = 0;
  }
  const EngineInfo& info() const override { return info_; }

  StepNumber launch(const StepInput& input) override {
    const double cpu = thread_cpu_us();
    Step step;
    for (const SequenceSlice& slice : input.slices) {
      if (slice.samples) step.tokens.push_back({slice.slot, ++token_ % kVocabSize, 0.0f});
    }
    step_end_ = std::max(Clock::now(), step_end_) + kStep;
    step.seen_from = step_end_ + kDelay;
    steps_.push_back(std::move(step));
    cpu_us += thread_cpu_us() - cpu;
    return ++num_launched_;
  }

  StepOutput finish() override {
    const double cpu = thread_cpu_us();
    finished_ = std::move(steps_.front());
    steps_.pop_front();
    std::this_thread::sleep_until(finished_.seen_from);
    cpu_us += thread_cpu_us() - cpu;
    return {.tokens = finished_.tokens};
  }
  bool is_copied(StepNumber) override { return true; }

  double cpu_us = 0;  // of both

 private:
  struct Step {
    Clock::time_point seen_from;
    std::vector<SampledToken> tokens;
  };
  EngineInfo info_{};
  std::deque<Step> steps_;
  Step finished_;
  Clock::time_point step_end_;
  StepNumber num_launched_ = 0;
  int32_t token_ = 0;
};

json measure(int32_t batch_size, int32_t max_steps_in_flight, double seconds) {
  auto owner = std::make_unique<TimelineEngine>(batch_size, max_steps_in_flight);
  const TimelineEngine& engine = *owner;
  std::mutex mutex;
  std::condition_variable done;
  bool is_done = false;
  int num_steps = -kNumWarmUpSteps;  // in which all sequences generate
  Clock::time_point begin;
  double elapsed = 0, loop_us = 0, begin_us = 0;

  BatchManagerOptions options;
  options.on_step = [&](const StepStatistics& step) {
    if (step.generation_slices < batch_size || is_done) return;
    ++num_steps;
    const double now_us = thread_cpu_us() - engine.cpu_us;
    if (num_steps == 0) {
      begin = Clock::now();
      begin_us = now_us;
    }
    elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
    if (num_steps <= 0 || elapsed < seconds) return;
    loop_us = (now_us - begin_us) / num_steps;
    std::lock_guard lock(mutex);
    is_done = true;
    done.notify_one();
  };
  BatchManager manager(std::move(owner), options);
  for (int32_t i = 0; i < batch_size; ++i) {
    Request request;
    request.input_ids = {1, 2, 3};
    request.max_new_tokens = kMaxSeqLen - 3;
    request.sampling.end_ids = {-1};
    request.streaming = true;
    manager.submit(std::move(request), [](RequestId, const Response&) {});
  }
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return is_done; });
  const double steps_per_s = num_steps / elapsed;
  return {{"batch", batch_size},
          {"steps_in_flight", max_steps_in_flight},
          {"steps_per_s", steps_per_s},
          {"share", steps_per_s * std::chrono::duration<double>(kStep).count()},
          {"loop_us", loop_us}};
}

int run(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 5.0;
  json rows = json::array();
  for (const int32_t batch_size : {1, 256}) {
    for (const int32_t in_flight : {1, 2, 3}) rows.push_back(measure(batch_size, in_flight, seconds));
  }
  std::cout << rows.dump(2) << std::endl;
  return 0;
}

}  // namespace
}  // namespace inflight

int main(int argc, char** argv) { return inflight::run(argc, argv); }
