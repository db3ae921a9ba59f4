// Who runs when: policies, pauses, priorities, deadlines.

#include <algorithm>
#include <mutex>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "check.h"
#include "collector.h"
#include "paged_engine.h"

using namespace inflight;
using namespace inflight::test;
using namespace std::chrono_literals;

TEST(max_utilization_runs_more_at_once_and_paused_sequences_lose_nothing) {
  EngineInfo info = small_engine();
  info.num_blocks = 16;  // one sequence of 64 tokens
  for (const auto policy : {SchedulerPolicy::kGuaranteedNoEvict, SchedulerPolicy::kMaxUtilization}) {
    for (const bool reuse : {false, true}) {
      int32_t widest = 0;
      BatchManagerOptions options;
      options.scheduler_policy = policy;
      options.enable_kv_cache_reuse = reuse;
      options.on_step = [&](const StepStatistics& step) { widest = std::max(widest, step.scheduled_slices); };
      std::vector<Collector> collectors(12);
      Statistics statistics;
      {
        BatchManager manager(std::make_unique<PagedEngine>(info), options);
        for (int32_t i = 0; i < 12; ++i) manager.submit(make_request({i, 2, 3}, 50), collectors[i].callback());
        for (int32_t i = 0; i < 12; ++i) {
          CHECK(collectors[i].wait().finish_reason == FinishReason::kLength);
          CHECK(collectors[i].tokens() == PagedEngine::expected_tokens({i, 2, 3}, 50, 1000));
        }
        statistics = at_rest(manager);
      }
      CHECK_EQ(statistics.free_blocks, 16);
      CHECK_EQ(statistics.paused_sequences, 0);
      const bool pauses = policy == SchedulerPolicy::kMaxUtilization;
      CHECK_EQ(widest, pauses ? 4 : 1);
      CHECK_EQ(statistics.pauses > 0, pauses);
    }
  }
}

TEST(a_paused_sequence_goes_on_without_chunked_context) {
  EngineInfo info = small_engine();
  info.num_blocks = 16;
  info.max_num_tokens = 8;  // far less than what a paused sequence has to compute anew
  BatchManagerOptions options;
  options.scheduler_policy = SchedulerPolicy::kMaxUtilization;
  options.enable_chunked_context = false;
  std::vector<Collector> collectors(4);
  BatchManager manager(std::make_unique<PagedEngine>(info), options);
  for (int32_t i = 0; i < 4; ++i) manager.submit(make_request({i, 2, 3}, 50), collectors[i].callback());
  for (int32_t i = 0; i < 4; ++i) {
    collectors[i].wait();
    CHECK(collectors[i].tokens() == PagedEngine::expected_tokens({i, 2, 3}, 50, 1000));
  }
  CHECK(at_rest(manager).pauses > 0);
}

TEST(a_static_batch_ends_before_the_next_begins) {
  std::mutex mutex;
  std::vector<int32_t> widths;
  BatchManagerOptions options;
  options.scheduler_policy = SchedulerPolicy::kStaticBatch;
  options.on_step = [&](const StepStatistics& step) {
    std::lock_guard lock(mutex);
    widths.push_back(step.running_sequences);
  };
  std::vector<Collector> collectors(9);
  {
    auto engine = std::make_unique<PagedEngine>(small_engine());
    engine->before_finish = [](const StepInput&) { std::this_thread::sleep_for(1ms); };
    BatchManager manager(std::move(engine), options);
    for (int32_t i = 0; i < 9; ++i) manager.submit(make_request({i}, 3 + i), collectors[i].callback());
    for (auto& collector : collectors) collector.wait();
  }
  for (size_t i = 1; i < widths.size(); ++i) CHECK(widths[i] <= widths[i - 1] || widths[i - 1] == 1);
}

TEST(a_higher_priority_starts_earlier_and_a_lower_one_is_not_passed_for_ever) {
  EngineInfo info = small_engine();
  info.max_batch_size = 1;
  auto engine = std::make_unique<PagedEngine>(info);
  std::atomic<bool> held = true;
  engine->before_finish = [&](const StepInput&) {
    while (held) std::this_thread::sleep_for(100us);
  };
  std::mutex mutex;
  std::vector<RequestId> ended;
  BatchManager manager(std::move(engine), {});
  const int count = 300;
  std::atomic<int> open = count;
  RequestId lowest = 0, highest = 0;
  for (int i = 0; i < count; ++i) {
    Request request = make_request({1}, 1);
    request.priority = i == 1 ? 0.0f : i == 50 ? 1.0f : 0.5f;
    const RequestId id = manager.submit(request, [&](RequestId id, const Response&) {
      std::lock_guard lock(mutex);
      ended.push_back(id);
      --open;
    });
    if (i == 1) lowest = id;
    if (i == 50) highest = id;
  }
  held = false;
  while (open > 0) std::this_thread::sleep_for(1ms);
  const auto place = [&](RequestId id) { return std::find(ended.begin(), ended.end(), id) - ended.begin(); };
  CHECK(place(highest) <= 2);
  CHECK(place(lowest) >= 50);
  CHECK(place(lowest) <= 52);
}

TEST(a_deadline_ends_running_and_waiting_requests) {
  EngineInfo info = small_engine();
  info.max_batch_size = 1;
  auto engine = std::make_unique<PagedEngine>(info);
  engine->before_finish = [](const StepInput&) { std::this_thread::sleep_for(2ms); };
  BatchManager manager(std::move(engine), {});
  Collector running, waiting, patient;
  Request request = make_request({1}, 60);
  request.deadline = std::chrono::steady_clock::now() + 20ms;
  manager.submit(request, running.callback());
  manager.submit(request, waiting.callback());
  manager.submit(make_request({1}, 3), patient.callback());
  for (Collector* collector : {&running, &waiting}) {
    const Response& last = collector->wait();
    CHECK(last.error && last.error->code() == ErrorCode::kUnavailable);
    CHECK(std::string(last.error->what()).find("timed out after") != std::string::npos);
  }
  CHECK(patient.wait().finish_reason == FinishReason::kLength);
  CHECK_EQ(at_rest(manager).free_blocks, 40);
}

TEST(others_run_while_blocks_come_from_the_host_tier) {
  EngineInfo info = small_engine();
  info.num_blocks = 16;
  info.num_host_blocks = 32;
  auto engine = std::make_unique<PagedEngine>(info);
  PagedEngine& raw = *engine;
  raw.before_finish = [](const StepInput&) { std::this_thread::sleep_for(1ms); };
  BatchManager manager(std::move(engine), {.enable_kv_cache_reuse = true});
  std::vector<std::vector<int32_t>> prompts;
  std::mt19937 random(3);
  for (int i = 0; i < 6; ++i) prompts.push_back(random_tokens(random, 24));
  for (int round = 0; round < 2; ++round) {
    for (const auto& prompt : prompts) {
      Collector collector;
      manager.submit(make_request(prompt, 4), collector.callback());
      collector.wait();
      CHECK(collector.tokens() == PagedEngine::expected_tokens(prompt, 4, 1000));
    }
  }
  CHECK(at_rest(manager).kv_cache.onboarded_blocks > 0);

  std::atomic<bool> held = true;
  raw.delays_copy = [&](StepNumber) { return held.load(); };
  Collector other, delayed;
  manager.submit(make_request({5, 5}, 40), other.callback());
  while (other.responses() == 0) std::this_thread::sleep_for(1ms);
  manager.submit(make_request(prompts[0], 4), delayed.callback());
  other.wait();
  held = false;
  delayed.wait();
  CHECK(delayed.tokens() == PagedEngine::expected_tokens(prompts[0], 4, 1000));
}

TEST_MAIN()
