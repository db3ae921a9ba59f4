#include "batch_manager/batch_manager.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <limits>
#include <mutex>
#include <random>
#include <thread>

#include "check.h"
#include "collector.h"
#include "common/logging.h"
#include "paged_engine.h"

using namespace inflight;
using namespace inflight::test;
using namespace std::chrono_literals;

TEST(every_request_of_a_random_trace_gets_the_tokens_it_gets_alone) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    EngineInfo info = small_engine();
    info.max_batch_size = 1 + random() % 6;
    info.max_num_tokens = info.max_batch_size + random() % 20;
    info.tokens_per_block = 1 << (random() % 5);
    info.num_blocks = 64 / info.tokens_per_block + random() % 40;
    BatchManagerOptions options;
    options.max_responses_per_second = seed % 3 == 0 ? 20000 : 0;
    BatchManager manager(std::make_unique<PagedEngine>(info), options);

    const int count = 40;
    std::vector<Collector> collectors(count);
    std::vector<Request> requests;
    std::vector<std::shared_ptr<std::atomic<bool>>> cancels;
    std::vector<RequestId> ids;
    for (int i = 0; i < count; ++i) {
      const int32_t prompt = 1 + random() % 40;
      Request request = make_request(random_tokens(random, prompt), 1 + random() % (64 - prompt), random() % 2 == 0);
      cancels.push_back(std::make_shared<std::atomic<bool>>(false));
      request.is_cancelled = [flag = cancels.back()] { return flag->load(); };
      requests.push_back(request);
      ids.push_back(manager.submit(request, collectors[i].callback()));
      if (random() % 8 == 0) cancels[random() % cancels.size()]->store(true);
      if (random() % 8 == 0) manager.cancel(ids[random() % ids.size()]);
      if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
    }
    for (int i = 0; i < count; ++i) {
      const Response& last = collectors[i].wait();
      CHECK(!last.error);
      const auto tokens = collectors[i].tokens();
      if (last.finish_reason == FinishReason::kLength) {
        CHECK_EQ(tokens.size(), static_cast<size_t>(requests[i].max_new_tokens));
        const auto cached = static_cast<int32_t>(requests[i].input_ids.size() + tokens.size()) - 1;
        CHECK_EQ(last.kv_cache_alloc_total_blocks, (cached + info.tokens_per_block - 1) / info.tokens_per_block);
      } else {
        CHECK(last.finish_reason == FinishReason::kCancelled);
      }
      CHECK(tokens == PagedEngine::expected_tokens(requests[i].input_ids, tokens.size(), info.vocab_size));
      if (!requests[i].streaming) CHECK_EQ(collectors[i].responses(), 1);
    }
    CHECK_EQ(at_rest(manager).free_blocks, info.num_blocks);
  }
}

TEST(requests_join_a_running_batch_between_steps) {
  auto engine = std::make_unique<PagedEngine>(small_engine());
  std::atomic<size_t> widest = 0;
  engine->before_finish = [&](const StepInput& input) {
    widest = std::max(widest.load(), input.slices.size());
    std::this_thread::sleep_for(1ms);
  };
  BatchManager manager(std::move(engine), {});
  Collector long_one, short_one;
  manager.submit(make_request({1, 2, 3}, 60), long_one.callback());
  while (long_one.responses() < 3) std::this_thread::sleep_for(1ms);
  manager.submit(make_request({4, 5}, 3), short_one.callback());
  short_one.wait();
  CHECK(long_one.tokens().size() < 60);
  CHECK_EQ(widest.load(), 2u);
  long_one.wait();
}

TEST(generation_goes_on_while_a_long_context_is_chunked) {
  auto engine = std::make_unique<PagedEngine>(small_engine());
  std::vector<std::vector<int32_t>> steps;  // tokens of each slice
  engine->before_finish = [&](const StepInput& input) {
    steps.emplace_back();
    for (const auto& slice : input.slices) steps.back().push_back(slice.tokens.size());
    std::this_thread::sleep_for(500us);
  };
  {
    BatchManager manager(std::move(engine), {});
    Collector generating, arriving;
    manager.submit(make_request({1}, 60), generating.callback());
    while (generating.responses() < 2) std::this_thread::sleep_for(1ms);
    std::mt19937 random(1);
    manager.submit(make_request(random_tokens(random, 21), 2), arriving.callback());
    arriving.wait();
    manager.cancel(1);
    generating.wait();
  }
  // 21 prompt tokens beside one generation token in steps of 8: chunks of whole blocks of 4, up to the last.
  std::vector<int32_t> chunks;
  for (const auto& step : steps) {
    if (step.size() != 2 || step[1] == 1) continue;
    CHECK_EQ(step[0], 1);
    chunks.push_back(step[1]);
  }
  CHECK(chunks == (std::vector<int32_t>{4, 4, 4, 4, 5}));
}

TEST(without_chunking_a_long_context_is_not_overtaken_for_ever) {
  auto engine = std::make_unique<PagedEngine>(small_engine());
  BatchManagerOptions options;
  options.enable_chunked_context = false;
  BatchManager manager(std::move(engine), options);
  std::vector<Collector> collectors(30);
  for (int i = 0; i < 30; ++i) {
    const int32_t prompt = i % 5 == 2 ? 8 : 2;  // 8: the whole budget of a step
    manager.submit(make_request(std::vector<int32_t>(prompt, i), 10), collectors[i].callback());
  }
  for (auto& collector : collectors) CHECK(collector.wait().finish_reason == FinishReason::kLength);
  Collector too_long;
  CHECK_ERROR(manager.submit(make_request(std::vector<int32_t>(9, 1), 1), too_long.callback()),
              ErrorCode::kInvalidArgument, "enable_chunked_context");
}

TEST(an_id_that_is_yet_to_be_given_cannot_be_cancelled) {
  BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {});
  manager.cancel(1);
  Collector collector;
  CHECK_EQ(manager.submit(make_request({1, 2}, 5), collector.callback()), 1u);
  CHECK(collector.wait().finish_reason == FinishReason::kLength);
}

TEST(a_request_that_has_started_does_not_fill_the_queue) {
  auto engine = std::make_unique<PagedEngine>(small_engine());
  std::atomic<bool> held = true;
  std::atomic<bool> runs = false;
  engine->before_finish = [&](const StepInput&) {
    runs = true;
    while (held) std::this_thread::sleep_for(100us);
  };
  BatchManager manager(std::move(engine), {.max_queue_size = 1});
  Collector running, waiting, refused;
  manager.submit(make_request({1, 2}, 2), running.callback());
  while (!runs) std::this_thread::sleep_for(100us);
  manager.submit(make_request({1, 2}, 2), waiting.callback());
  CHECK_ERROR(manager.submit(make_request({1, 2}, 2), refused.callback()), ErrorCode::kUnavailable,
              "the queue is full");
  held = false;
  running.wait();
  waiting.wait();
}

TEST(beams_with_more_ways_to_end_than_the_vocabulary_has_tokens_are_refused) {
  EngineInfo info = small_engine();
  info.vocab_size = 8;
  info.max_beam_width = 2;
  BatchManager manager(std::make_unique<PagedEngine>(info), {});
  Request request = make_request({1, 2}, 5);
  request.beam_search.beam_width = 2;
  for (int32_t token = 0; token < 7; ++token) request.stop_words.add(std::span(&token, 1));
  Collector collector;
  CHECK_ERROR(manager.submit(request, collector.callback()), ErrorCode::kInvalidArgument, "stop_words");
}

TEST(a_retention_of_more_than_a_lifetime_is_refused) {
  BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {.enable_kv_cache_reuse = true});
  Request request = make_request({1, 2, 3, 4, 5}, 5);
  request.retention.ranges.push_back({0, std::nullopt, 80, std::chrono::milliseconds::max()});
  Collector collector;
  CHECK_ERROR(manager.submit(request, collector.callback()), ErrorCode::kInvalidArgument,
              "retention_token_range_durations_ms");
}

TEST(the_inter_token_latency_is_the_steps_whatever_the_number_of_beams) {
  EngineInfo info = small_engine();
  info.max_beam_width = 4;
  for (const int32_t width : {1, 2, 4}) {
    auto engine = std::make_unique<PagedEngine>(info);
    engine->before_finish = [](const StepInput&) { std::this_thread::sleep_for(2ms); };
    std::promise<RequestTimes> end;
    BatchManagerOptions options;
    options.on_request_end = [&](const RequestTimes& times) { end.set_value(times); };
    BatchManager manager(std::move(engine), options);
    Request request = make_request({1, 2}, 10);
    request.beam_search.beam_width = width;
    Collector collector;
    manager.submit(request, collector.callback());
    const RequestTimes times = end.get_future().get();
    CHECK(*times.inter_token_latency >= 2ms);
    CHECK(*times.inter_token_latency <= times.total / 9);
    collector.wait();
  }
}

TEST(end_ids_end_without_being_sent_and_stop_words_are_sent) {
  BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {});
  const auto expected = PagedEngine::expected_tokens({7, 8}, 10, 1000);
  {
    Collector collector;
    Request request = make_request({7, 8}, 10);
    request.sampling.end_ids = {expected[4], 999};
    manager.submit(request, collector.callback());
    CHECK(collector.wait().finish_reason == FinishReason::kEndId);
    CHECK(collector.tokens() == std::vector<int32_t>(expected.begin(), expected.begin() + 4));
  }
  {
    Collector collector;
    Request request = make_request({7, 8}, 10);
    request.stop_words = {{5, 5, 5}, {expected[2], expected[3]}};
    manager.submit(request, collector.callback());
    CHECK(collector.wait().finish_reason == FinishReason::kStopWords);
    CHECK(collector.tokens() == std::vector<int32_t>(expected.begin(), expected.begin() + 4));
  }
  {
    Collector collector;  // a stop word is looked for in what is generated, not in the prompt
    Request request = make_request({7, 8}, 10);
    request.stop_words = {{8, expected[0]}};
    manager.submit(request, collector.callback());
    CHECK(collector.wait().finish_reason == FinishReason::kLength);
  }
}

TEST(log_probs_go_with_their_tokens_and_add_up) {
  BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {});
  for (const bool streaming : {false, true}) {
    Collector collector;
    Request request = make_request({1, 2}, 5, streaming);
    request.sampling.return_log_probs = true;
    manager.submit(request, collector.callback());
    const Response& last = collector.wait();
    CHECK_EQ(last.log_probs.size(), last.tokens.size());
    CHECK_EQ(last.cum_log_prob, -5.0f);
  }
}

TEST(cancelling_frees_the_blocks_within_one_step) {
  auto engine = std::make_unique<PagedEngine>(small_engine());
  PagedEngine& raw = *engine;
  raw.before_finish = [](const StepInput&) { std::this_thread::sleep_for(1ms); };
  BatchManager manager(std::move(engine), {});
  for (int i = 0; i < 200; ++i) {
    Collector collector;
    auto cancelled = std::make_shared<std::atomic<bool>>(false);
    std::atomic<uint64_t> asked_at = 0;
    Request request = make_request({1, 2, 3, 4, 5}, 50);
    request.is_cancelled = [cancelled] { return cancelled->load(); };
    const RequestId id = manager.submit(request, collector.callback());
    while (collector.responses() == 0) std::this_thread::sleep_for(100us);
    asked_at = raw.steps.load();
    if (i % 2 == 0) {
      cancelled->store(true);
    } else {
      manager.cancel(id);
    }
    CHECK(collector.wait().finish_reason == FinishReason::kCancelled);
    CHECK(raw.steps.load() <= asked_at + 1);
    CHECK_EQ(manager.statistics().free_blocks, 40);
  }
}

TEST(a_failing_step_ends_its_sequences_and_the_next_request_works) {
  auto engine = std::make_unique<PagedEngine>(small_engine());
  std::atomic<bool> fails = true;
  engine->before_finish = [&](const StepInput&) {
    if (fails) throw_error(ErrorCode::kInternal, "device lost");
  };
  BatchManager manager(std::move(engine), {});
  set_log_sink([](LogLevel, const std::string&) {});
  Collector failing, working;
  manager.submit(make_request({1, 2}, 5), failing.callback());
  const Response& last = failing.wait();
  CHECK(last.error && std::string(last.error->what()) == "device lost");
  fails = false;
  manager.submit(make_request({1, 2}, 5), working.callback());
  CHECK(working.wait().finish_reason == FinishReason::kLength);
  CHECK(working.tokens() == PagedEngine::expected_tokens({1, 2}, 5, 1000));
  CHECK_EQ(at_rest(manager).free_blocks, 40);
}

TEST(destruction_ends_every_request_with_unavailable) {
  std::vector<Collector> collectors(20);
  {
    auto engine = std::make_unique<PagedEngine>(small_engine());
    engine->before_finish = [](const StepInput&) { std::this_thread::sleep_for(1ms); };
    BatchManager manager(std::move(engine), {});
    for (auto& collector : collectors) manager.submit(make_request({1, 2, 3}, 60), collector.callback());
    std::this_thread::sleep_for(5ms);
  }
  for (auto& collector : collectors) {
    const Response& last = collector.wait();
    CHECK(last.error && last.error->code() == ErrorCode::kUnavailable);
  }
}

TEST(a_full_queue_answers_unavailable_at_once) {
  auto engine = std::make_unique<PagedEngine>(small_engine());
  engine->before_finish = [](const StepInput&) { std::this_thread::sleep_for(1ms); };
  BatchManagerOptions options;
  options.max_queue_size = 3;
  std::vector<Collector> collectors(20);  // outlives the manager, which ends the requests it took
  BatchManager manager(std::move(engine), options);
  int refused = 0;
  for (auto& collector : collectors) {
    try {
      manager.submit(make_request({1}, 60), collector.callback());
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kUnavailable);
      ++refused;
    }
  }
  CHECK(refused >= 20 - 4 - 3);
}

TEST(a_slow_client_does_not_stall_the_others_and_its_tokens_are_joined) {
  BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {});
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  Collector slow;
  std::atomic<bool> first = true;
  auto collect = slow.callback();
  manager.submit(make_request({1}, 60), [&](RequestId id, const Response& response) {
    if (first.exchange(false)) released.wait();
    collect(id, response);
  });
  while (manager.statistics().generated_tokens < 60) std::this_thread::sleep_for(100us);
  release.set_value();
  slow.wait();
  CHECK(slow.responses() <= 4);  // the one in the client's hands, and all that gathered behind it
  CHECK(slow.tokens() == PagedEngine::expected_tokens({1}, 60, 1000));
}

TEST(delivery_keeps_to_its_rate) {
  BatchManagerOptions options;
  options.max_responses_per_second = 1000;
  BatchManager manager(std::make_unique<PagedEngine>(small_engine()), options);
  const auto start = std::chrono::steady_clock::now();
  std::vector<Collector> collectors(40);
  int responses = 0;
  for (auto& collector : collectors) manager.submit(make_request({1}, 60), collector.callback());
  for (auto& collector : collectors) collector.wait();
  for (auto& collector : collectors) responses += collector.responses();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  CHECK(responses <= 1000 * seconds.count() + 33);  // rate × time + the burst
}

TEST(stopping_does_not_wait_for_the_rate) {
  std::vector<Collector> collectors(60);
  BatchManagerOptions options;
  options.max_responses_per_second = 1;  // paced, these would take a minute
  auto manager = std::make_unique<BatchManager>(std::make_unique<PagedEngine>(small_engine()), options);
  for (auto& collector : collectors) manager->submit(make_request({1}, 60), collector.callback());
  manager.reset();
  for (auto& collector : collectors) CHECK(collector.wait().is_final);
}

TEST(bad_requests_are_refused_by_name) {
  EngineInfo info = small_engine();
  info.num_blocks = 10;
  BatchManager manager(std::make_unique<PagedEngine>(info), {.word_limits = {.max_words = 2, .max_length = 3}});
  const auto refused = [&](const std::string& text, auto change) {
    Request request = make_request({1, 2, 3}, 4);
    change(request);
    CHECK_ERROR(manager.submit(request, [](RequestId, const Response&) {}), ErrorCode::kInvalidArgument, text);
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  refused("input_ids is empty", [](Request& r) { r.input_ids.clear(); });
  refused("at most 63", [](Request& r) { r.input_ids.assign(64, 1); });
  refused("input_ids holds 1000 at position 1", [](Request& r) { r.input_ids[1] = 1000; });
  refused("input_ids holds -1 at position 0", [](Request& r) { r.input_ids[0] = -1; });
  refused("max_tokens) is 0", [](Request& r) { r.max_new_tokens = 0; });
  refused("max_tokens) is -5", [](Request& r) { r.max_new_tokens = -5; });
  refused("ask for at most 61", [](Request& r) { r.max_new_tokens = 62; });
  refused("ask for at most 61", [](Request& r) { r.max_new_tokens = std::numeric_limits<int32_t>::max(); });
  refused("16 blocks of the KV cache, and it has 10 of 4 tokens", [](Request& r) { r.max_new_tokens = 61; });
  refused("temperature is -1", [](Request& r) { r.sampling.temperature = -1; });
  refused("temperature is nan", [&](Request& r) { r.sampling.temperature = nan; });
  refused("top_p is 1.5", [](Request& r) { r.sampling.top_p = 1.5; });
  refused("top_p is -0.1", [](Request& r) { r.sampling.top_p = -0.1f; });
  refused("top_k is -1", [](Request& r) { r.sampling.top_k = -1; });
  refused("min_length is -1", [](Request& r) { r.sampling.min_length = -1; });
  refused("repetition_penalty is 0", [](Request& r) { r.sampling.repetition_penalty = 0; });
  refused("presence_penalty is nan", [&](Request& r) { r.sampling.presence_penalty = nan; });
  refused("end_id is 1000", [](Request& r) { r.sampling.end_ids = {1000}; });
  refused("bad_words holds 1001", [](Request& r) { r.bad_words = {{1, 1001}}; });
  refused("stop_words holds a word without tokens", [](Request& r) { r.stop_words = {{}}; });
  refused("stop_words has 5 words as tokens; at most 4", [](Request& r) { r.stop_words = {{1}, {2}, {3}, {4}, {5}}; });
  refused("the words of bad_words have 9 tokens together; at most 8",
          [](Request& r) { r.bad_words = {{1, 2, 3, 4}, {2, 3, 4, 5, 6}}; });
  Collector collector;
  manager.submit(make_request({1, 2, 3}, 4), collector.callback());
  CHECK(collector.wait().finish_reason == FinishReason::kLength);
}

// Those are compiled on a thread of their own.
TEST(many_words_stop_as_few_do) {
  BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {});
  const auto expected = PagedEngine::expected_tokens({7, 8}, 10, 1000);
  std::mt19937 random(1);
  WordList words = {{expected[2], expected[3]}};
  while (words.size() < 3000) words.add(std::vector{static_cast<int32_t>(random() % 1000), 1, 2});
  Request request = make_request({7, 8}, 10);
  request.stop_words = words;
  Collector collector;
  manager.submit(request, collector.callback());
  CHECK(collector.wait().finish_reason == FinishReason::kStopWords);
  CHECK(collector.tokens() == std::vector<int32_t>(expected.begin(), expected.begin() + 4));
  std::vector<std::unique_ptr<Collector>> cancelled;
  for (int i = 0; i < 20; ++i) {
    cancelled.push_back(std::make_unique<Collector>());
    manager.cancel(manager.submit(request, cancelled.back()->callback()));
  }
  for (const auto& collector : cancelled) collector->wait();
}

TEST_MAIN()
