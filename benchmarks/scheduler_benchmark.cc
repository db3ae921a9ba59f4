// What a step costs beside the forward pass: 256 running sequences of about 2,000 tokens, each policy, with and without
// KV-cache reuse.
//
//   scheduler_benchmark [TOKENS_PER_BLOCK]
//
// Prints JSON. "scheduling": Scheduler::schedule and the KV cache's part of a step, µs and heap allocations a step.
// "loop": a step of the whole batch manager over an engine that answers at once, allocations of all of its threads.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <iostream>
#include <latch>
#include <mutex>
#include <new>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "batch_manager/scheduler.h"

namespace {

std::atomic<uint64_t> num_allocations{0};
thread_local bool is_counting = true;

void* allocate(size_t size) {
  if (is_counting) num_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(std::max<size_t>(size, 1))) return memory;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(size_t size) { return allocate(size); }
void* operator new[](size_t size) { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace inflight {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr int32_t kNumSequences = 256;
constexpr int32_t kPromptLength = 1744;
constexpr int32_t kNumWarmUpSteps = 64;
constexpr int32_t kNumSteps = 448;  // 2,000 tokens on average
constexpr int32_t kVocabSize = 32000;

EngineInfo engine_info(int32_t tokens_per_block) {
  EngineInfo info{};
  info.model_type = "llama";
  info.vocab_size = kVocabSize;
  info.max_batch_size = kNumSequences;
  info.max_num_tokens = 8192;
  info.max_seq_len = 4096;
  info.tokens_per_block = tokens_per_block;
  info.num_blocks = (kNumSequences + 1) * info.max_seq_len / tokens_per_block;
  info.kv_bytes_per_block = 1;
  return info;
}

std::vector<Request> make_requests() {
  std::mt19937 random(1);
  std::vector<Request> requests(kNumSequences);
  for (Request& request : requests) {
    for (int32_t i = 0; i < kPromptLength; ++i) request.input_ids.push_back(random() % kVocabSize);
    request.max_new_tokens = kNumWarmUpSteps + kNumSteps + 256;  // more than the first has while the last starts
    request.sampling.end_ids = {-1};
  }
  return requests;
}

json summary(std::vector<double>& microseconds, uint64_t allocations) {
  std::sort(microseconds.begin(), microseconds.end());
  const size_t count = microseconds.size();
  return {{"median_us", microseconds[count / 2]},
          {"p99_us", microseconds[count * 99 / 100]},
          {"allocations_per_step", static_cast<double>(allocations) / static_cast<double>(count)}};
}

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

json measure_scheduling(const EngineInfo& info, SchedulerPolicy policy, bool reuse) {
  Scheduler scheduler(info, policy, /*enable_chunked_context=*/true, reuse);
  RequestId id = 0;
  for (Request& request : make_requests()) {
    scheduler.add(std::make_shared<RequestState>(id, std::move(request), static_cast<double>(id)));
    ++id;
  }
  std::vector<double> microseconds;
  microseconds.reserve(kNumSteps);
  uint64_t allocations = 0;
  int32_t num_full_steps = 0;  // in which all sequences generate
  int32_t token = 0;
  while (num_full_steps < kNumWarmUpSteps + kNumSteps) {
    const uint64_t allocations_before = num_allocations;
    const auto begin = Clock::now();
    const std::vector<ScheduledSequence>& sequences = scheduler.schedule();
    scheduler.kv_cache().take_copies();
    double spent = microseconds_since(begin);
    uint64_t allocated = num_allocations - allocations_before;

    const bool is_full = sequences.size() == kNumSequences && !sequences.back().is_context;
    for (const ScheduledSequence& scheduled : sequences) scheduled.sequence->num_cached += scheduled.num_tokens;
    const uint64_t allocations_between = num_allocations;
    const auto middle = Clock::now();
    for (const ScheduledSequence& scheduled : sequences) scheduler.commit(*scheduled.sequence);
    scheduler.collect_finished();
    scheduler.finished().clear();
    spent += microseconds_since(middle);
    allocated += num_allocations - allocations_between;

    for (const ScheduledSequence& scheduled : sequences) {
      if (scheduled.sequence->num_uncached() == 0) scheduled.sequence->accept({0, ++token % kVocabSize, 0.0f});
    }
    if (is_full && ++num_full_steps > kNumWarmUpSteps) {
      microseconds.push_back(spent);
      allocations += allocated;
    }
  }
  return summary(microseconds, allocations);
}

// Answers at once, from when it may; its own allocations are not counted.
class InstantEngine final : public Engine {
 public:
  InstantEngine(const EngineInfo& info, std::latch& begins, std::latch& may_go)
      : info_(info), begins_(begins), may_go_(may_go) {}
  const EngineInfo& info() const override { return info_; }
  StepNumber launch(const StepInput& input) override {
    if (!std::exchange(has_begun_, true)) begins_.count_down();
    may_go_.wait();
    is_counting = false;
    tokens_.clear();
    for (const SequenceSlice& slice : input.slices) {
      if (slice.samples) tokens_.push_back({slice.slot, ++token_ % kVocabSize, 0.0f});
    }
    is_counting = true;
    return ++num_steps_;
  }
  StepOutput finish() override { return {.tokens = tokens_}; }
  bool is_copied(StepNumber) override { return true; }

 private:
  const EngineInfo info_;
  std::latch& begins_;
  std::latch& may_go_;
  bool has_begun_ = false;
  std::vector<SampledToken> tokens_;
  StepNumber num_steps_ = 0;
  int32_t token_ = 0;
};

json measure_loop(const EngineInfo& info, SchedulerPolicy policy, bool reuse, bool streaming) {
  std::mutex mutex;
  std::condition_variable done;
  std::vector<double> microseconds;
  microseconds.reserve(kNumSteps);
  uint64_t first = 0, last = 0;
  int32_t num_full_steps = 0;
  auto begin = Clock::now();

  BatchManagerOptions options;
  options.scheduler_policy = policy;
  options.enable_kv_cache_reuse = reuse;
  options.on_step = [&](const StepStatistics& step) {
    std::lock_guard lock(mutex);
    const double spent = microseconds_since(begin);
    begin = Clock::now();
    if (step.generation_slices < kNumSequences || ++num_full_steps <= kNumWarmUpSteps) {
      first = num_allocations;
    } else if (microseconds.size() < kNumSteps) {
      microseconds.push_back(spent);
      last = num_allocations;
      if (microseconds.size() == kNumSteps) done.notify_one();
    }
  };
  // All wait behind a first step, so that they start together.
  std::latch begins(1), may_go(1);
  BatchManager manager(std::make_unique<InstantEngine>(info, begins, may_go), options);
  Request first_step;
  first_step.input_ids = {1};
  first_step.max_new_tokens = 1;
  manager.submit(std::move(first_step), [](RequestId, const Response&) {});
  begins.wait();
  for (Request& request : make_requests()) {
    request.streaming = streaming;
    manager.submit(std::move(request), [](RequestId, const Response&) {});
  }
  may_go.count_down();
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return microseconds.size() == kNumSteps; });
  json result = summary(microseconds, last - first);
  result["streaming"] = streaming;
  return result;
}

int run(int argc, char** argv) {
  const EngineInfo info = engine_info(argc > 1 ? std::atoi(argv[1]) : 64);
  const std::pair<const char*, SchedulerPolicy> policies[] = {
      {"guaranteed_no_evict", SchedulerPolicy::kGuaranteedNoEvict},
      {"max_utilization", SchedulerPolicy::kMaxUtilization},
      {"static_batch", SchedulerPolicy::kStaticBatch}};
  json rows = json::array();
  for (const auto& [name, policy] : policies) {
    for (const bool reuse : {false, true}) {
      rows.push_back({{"policy", name},
                      {"enable_kv_cache_reuse", reuse},
                      {"scheduling", measure_scheduling(info, policy, reuse)},
                      {"loop", {measure_loop(info, policy, reuse, false), measure_loop(info, policy, reuse, true)}}});
    }
  }
  const json options = {{"sequences", kNumSequences},
                        {"mean_tokens", kPromptLength + kNumWarmUpSteps + kNumSteps / 2},
                        {"tokens_per_block", info.tokens_per_block},
                        {"steps", kNumSteps}};
  std::cout << json{{"options", options}, {"rows", rows}}.dump(2) << std::endl;
  return 0;
}

}  // namespace
}  // namespace inflight

int main(int argc, char** argv) { return inflight::run(argc, argv); }
