#include "triton/metrics/iteration_history.h"

#include <nlohmann/json.hpp>

#include "check.h"
#include "triton/metrics/iteration_log.h"

using namespace inflight;
using namespace inflight::triton;

namespace {

IterationStatistics step(uint64_t iteration) {
  IterationStatistics statistics;
  statistics.iteration = iteration;
  return statistics;
}

std::vector<uint64_t> take(IterationHistory& history) {
  std::vector<Iteration> taken;
  history.take(taken);
  std::vector<uint64_t> iterations;
  for (const Iteration& iteration : taken) iterations.push_back(iteration.statistics.iteration);
  return iterations;
}

}  // namespace

TEST(steps_are_taken_once_and_in_order) {
  IterationHistory history(4);
  history.add(step(1));
  history.add(step(2));
  CHECK(take(history) == (std::vector<uint64_t>{1, 2}));
  CHECK(take(history).empty());
  history.add(step(3));
  CHECK(take(history) == (std::vector<uint64_t>{3}));
}

TEST(only_the_latest_steps_are_kept) {
  IterationHistory history(3);
  for (int round = 0; round < 2; ++round) {
    for (uint64_t iteration = 1; iteration <= 7; ++iteration) history.add(step(iteration));
    CHECK(take(history) == (std::vector<uint64_t>{5, 6, 7}));
  }
}

TEST(a_history_of_no_steps_stays_empty) {
  IterationHistory history(0);
  history.add(step(1));
  CHECK(take(history).empty());
}

TEST(a_step_is_one_line_of_json_with_the_keys_of_tensorrt_llm) {
  IterationStatistics statistics = step(12);
  statistics.active_requests = 5;
  statistics.queued_requests = 2;
  statistics.paused_requests = 1;
  statistics.scheduled_sequences = 4;
  statistics.context_sequences = 1;
  statistics.generation_sequences = 3;
  statistics.context_tokens = 40;
  statistics.generation_tokens = 3;
  statistics.free_blocks = 7;
  statistics.used_blocks = 9;
  statistics.duration = std::chrono::microseconds(1234);
  Statistics model;
  model.max_requests = 8;
  model.kv_cache.total_blocks = 16;
  model.kv_cache.tokens_per_block = 32;

  const std::string text = iteration_line("tensorrt_llm", {statistics, std::chrono::system_clock::now()}, model);
  CHECK(text.find('\n') == std::string::npos);
  auto line = nlohmann::json::parse(text);
  CHECK_EQ(line["Timestamp"].get<std::string>().size(), std::string("11-20-2026 20:15:03.041592").size());
  line.erase("Timestamp");
  const nlohmann::json expected = {
      {"Model", "tensorrt_llm"},    {"Iteration Counter", 12},      {"Active Request Count", 5},
      {"Max Request Count", 8},     {"Waiting Requests", 3},        {"Paused Requests", 1},
      {"Scheduled Requests", 4},    {"Context Requests", 1},        {"Generation Requests", 3},
      {"Total Context Tokens", 40}, {"Total Generation Tokens", 3}, {"Max KV cache blocks", 16},
      {"Free KV cache blocks", 7},  {"Used KV cache blocks", 9},    {"Tokens per KV cache block", 32},
      {"Duration us", 1234}};
  CHECK(line == expected);
}

TEST_MAIN()
