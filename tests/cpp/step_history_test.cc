#include "triton/metrics/step_history.h"

#include <nlohmann/json.hpp>

#include "check.h"
#include "triton/metrics/step_log.h"

using namespace inflight;
using namespace inflight::triton;

namespace {

StepStatistics step(uint64_t number) {
  StepStatistics statistics;
  statistics.step = number;
  return statistics;
}

std::vector<uint64_t> take(StepHistory& history) {
  std::vector<EndedStep> taken;
  history.take(taken);
  std::vector<uint64_t> numbers;
  for (const EndedStep& step : taken) numbers.push_back(step.statistics.step);
  return numbers;
}

}  // namespace

TEST(steps_are_taken_once_and_in_order) {
  StepHistory history(4);
  history.add(step(1));
  history.add(step(2));
  CHECK(take(history) == (std::vector<uint64_t>{1, 2}));
  CHECK(take(history).empty());
  history.add(step(3));
  CHECK(take(history) == (std::vector<uint64_t>{3}));
}

TEST(only_the_latest_steps_are_kept) {
  StepHistory history(3);
  for (int round = 0; round < 2; ++round) {
    for (uint64_t number = 1; number <= 7; ++number) history.add(step(number));
    CHECK(take(history) == (std::vector<uint64_t>{5, 6, 7}));
  }
}

TEST(a_history_of_no_steps_stays_empty) {
  StepHistory history(0);
  history.add(step(1));
  CHECK(take(history).empty());
}

namespace {

// The line's JSON without the time of day, after what is written before it.
nlohmann::json json_of(const std::string& line) {
  const std::string prefix = "tensorrt_llm, 1234 us: [TensorRT-LLM][INFO] ";
  CHECK_EQ(line.substr(0, prefix.size()), prefix);
  CHECK(line.find('\n') == std::string::npos);
  auto json = nlohmann::json::parse(line.substr(prefix.size()));
  CHECK_EQ(json["Timestamp"].get<std::string>().size(), std::string("11-20-2026 20:15:03.041592").size());
  json.erase("Timestamp");
  return json;
}

}  // namespace

TEST(a_step_is_a_line_with_the_keys_of_tensorrt_llm_and_no_others) {
  StepStatistics statistics = step(12);
  statistics.running_sequences = 5;
  statistics.queued_sequences = 2;
  statistics.paused_sequences = 1;
  statistics.scheduled_slices = 4;
  statistics.context_slices = 1;
  statistics.generation_slices = 3;
  statistics.context_tokens = 40;
  statistics.generation_tokens = 3;
  statistics.free_blocks = 12;
  statistics.used_blocks = 4;
  statistics.duration = std::chrono::microseconds(1234);
  Statistics model;
  model.max_sequences = 8;
  model.kv_cache.total_blocks = 16;
  model.kv_cache.tokens_per_block = 32;
  model.kv_cache.reused_blocks = 6;
  const EndedStep ended{statistics, std::chrono::system_clock::now()};

  nlohmann::json expected = {{"Iteration Counter", 12},
                             {"Active Request Count", 5},
                             {"Max Request Count", 8},
                             {"Waiting Requests", 3},
                             {"Scheduled Requests", 4},
                             {"Context Requests", 1},
                             {"Total Context Tokens", 40},
                             {"Max KV cache blocks", 16},
                             {"Free KV cache blocks", 12},
                             {"Used KV cache blocks", 4},
                             {"Tokens per KV cache block", 32},
                             {"Reused KV cache blocks", 6},
                             {"Fraction used KV cache blocks", 0.25},
                             {"Runtime CPU Memory Usage", 4096},
                             {"Runtime GPU Memory Usage", 0},
                             {"Runtime Pinned Memory Usage", 0},
                             {"KV cache transfer time", 0},
                             {"Request count", 0}};
  nlohmann::json in_flight = expected, static_batch = expected;
  in_flight.update({{"Generation Requests", 3}, {"Paused Requests", 1}, {"MicroBatch ID", 0}});
  static_batch.update({{"Total Generation Tokens", 3}, {"Empty Generation Slots", 4}});
  CHECK(json_of(step_line("tensorrt_llm", ended, model, false, 4096)) == in_flight);
  CHECK(json_of(step_line("tensorrt_llm", ended, model, true, 4096)) == static_batch);
}

TEST_MAIN()
