// What fails for one sequence fails that one alone.

#include <atomic>
#include <cstdlib>
#include <future>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "check.h"
#include "collector.h"
#include "common/logging.h"
#include "paged_engine.h"

using namespace inflight;
using namespace inflight::test;
using namespace std::chrono_literals;

namespace {

std::atomic<size_t> largest_allocation = SIZE_MAX;  // a larger one fails, as where there is no memory

}  // namespace

void* operator new(size_t size) {
  void* memory = size > largest_allocation ? nullptr : std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

TEST(a_sequence_without_memory_for_its_logits_fails_alone) {
  auto engine = std::make_unique<PagedEngine>(small_engine());
  std::atomic<bool> held = true;
  engine->before_finish = [&](const StepInput&) {
    while (held) std::this_thread::sleep_for(100us);
  };
  Collector innocent, greedy;
  BatchManager manager(std::move(engine), {});
  manager.submit(make_request({1, 2, 3}, 20), innocent.callback());
  Request request = make_request({4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 20);
  request.return_context_logits = true;
  manager.submit(request, greedy.callback());
  largest_allocation = 12 * 1000 * sizeof(float);  // of a step's rows, not of the prompt's
  held = false;
  CHECK(greedy.wait().error->code() == ErrorCode::kInternal);
  CHECK(innocent.wait().finish_reason == FinishReason::kLength);
  largest_allocation = SIZE_MAX;
  CHECK(innocent.tokens() == PagedEngine::expected_tokens({1, 2, 3}, 20, 1000));
  CHECK_EQ(at_rest(manager).free_blocks, small_engine().num_blocks);
}

TEST(requests_that_return_logits_share_their_memory_and_hold_up_nobody_else) {
  EngineInfo info = small_engine();
  info.max_returned_logits = 5;
  info.logits_bytes = 30 * 1000 * sizeof(float);
  std::atomic<int32_t> most_rows = 0;
  auto engine = std::make_unique<PagedEngine>(info);
  engine->before_finish = [&](const StepInput& input) {
    int32_t rows = 0;
    for (const SequenceSlice& slice : input.slices) rows += num_returned_logits(slice);
    most_rows = std::max(most_rows.load(), rows);
  };
  std::vector<Collector> collectors(20);
  Collector refused;
  BatchManagerOptions options;
  options.enable_kv_cache_reuse = true;
  BatchManager manager(std::move(engine), options);
  const std::vector<int32_t> prompt = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  std::vector<Request> requests;
  for (size_t i = 0; i < collectors.size(); ++i) {
    Request request = make_request(prompt, 9, /*streaming=*/i % 2 == 0);
    request.return_context_logits = i % 4 != 3;
    request.return_generation_logits = i % 4 < 2;
    requests.push_back(request);
  }
  for (size_t i = 0; i < collectors.size(); ++i) manager.submit(requests[i], collectors[i].callback());
  const auto expected = PagedEngine::expected_tokens(prompt, 9, 1000);
  for (size_t i = 0; i < collectors.size(); ++i) {
    CHECK(collectors[i].wait().finish_reason == FinishReason::kLength);
    CHECK(collectors[i].tokens() == expected);
  }
  CHECK(most_rows <= 5);
  requests[0].max_new_tokens = 20;
  CHECK_ERROR(manager.submit(requests[0], refused.callback()), ErrorCode::kInvalidArgument, "--logits-memory");
  CHECK_EQ(at_rest(manager).free_blocks, info.num_blocks);
}

TEST(a_response_keeps_its_share_of_the_memory_for_logits_until_it_is_let_go) {
  EngineInfo info = small_engine();
  info.logits_bytes = 8 * 1000 * sizeof(float);
  Request request = make_request({1, 2, 3, 4, 5, 6}, 3, /*streaming=*/false);
  request.return_context_logits = true;
  std::atomic<bool> second_started = false;
  Collector second, other;
  std::promise<Response> kept;
  BatchManager manager(std::make_unique<PagedEngine>(info), {});
  manager.submit(request, [&](RequestId, const Response& response) { kept.set_value(response); });
  Response response = kept.get_future().get();
  CHECK_EQ(response.context_logits->size(), 6u * 1000u);
  request.on_start = [&] { second_started = true; };
  manager.submit(request, second.callback());
  manager.submit(make_request({1, 2}, 3), other.callback());  // needs no such memory
  other.wait();
  CHECK(!second_started);
  response = {};
  second.wait();
}

TEST(copies_of_a_step_that_is_not_launched_end_those_who_need_them_and_nothing_shares_what_was_never_filled) {
  set_log_sink([](LogLevel, const std::string&) {});
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    EngineInfo info = small_engine();
    info.num_blocks = 20 + random() % 12;
    info.num_host_blocks = random() % 2 == 0 ? 0 : 8 + random() % 16;
    info.max_beam_width = 2;
    auto engine = std::make_unique<PagedEngine>(info);
    std::mt19937 failing(seed + 1000);
    std::atomic<int32_t> num_failed = 0;
    engine->before_launch = [&](const StepInput& input) {
      if (input.copies.empty() || failing() % 8 > 0) return;
      ++num_failed;
      throw_error(ErrorCode::kInternal, "a copy failed");
    };
    BatchManagerOptions options;
    options.enable_kv_cache_reuse = true;
    if (seed % 3 == 0) options.scheduler_policy = SchedulerPolicy::kMaxUtilization;
    BatchManager manager(std::move(engine), options);
    const auto stem = random_tokens(random, 30);
    int32_t num_right = 0;
    for (int round = 0; round < 12; ++round) {
      std::vector<Collector> collectors(6);
      std::vector<Request> requests;
      for (auto& collector : collectors) {
        std::vector<int32_t> prompt(stem.begin(), stem.begin() + 3 + random() % 27);
        prompt.push_back(random() % 4);
        requests.push_back(make_request(prompt, 1 + random() % 12, random() % 2 == 0));
        manager.submit(requests.back(), collector.callback());
      }
      for (size_t i = 0; i < collectors.size(); ++i) {
        if (collectors[i].wait().error) continue;
        const auto tokens = collectors[i].tokens();
        CHECK(tokens == PagedEngine::expected_tokens(requests[i].input_ids, tokens.size(), info.vocab_size));
        CHECK_EQ(tokens.size(), static_cast<size_t>(requests[i].max_new_tokens));
        ++num_right;
      }
    }
    CHECK(num_right > 20);
    CHECK_EQ(at_rest(manager).free_blocks, info.num_blocks);
  }
}

TEST_MAIN()
