#include "triton/metrics/iteration_log.h"

#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

namespace inflight::triton {
namespace {

// Local time, as TensorRT-LLM writes it: "11-20-2026 20:15:03.041592".
std::string timestamp(std::chrono::system_clock::time_point time) {
  const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = microseconds / 1000000;
  std::tm local;
  localtime_r(&seconds, &local);
  char text[64];
  const size_t length = std::strftime(text, sizeof(text), "%m-%d-%Y %H:%M:%S", &local);
  std::snprintf(text + length, sizeof(text) - length, ".%06d", static_cast<int>(microseconds % 1000000));
  return text;
}

}  // namespace

std::string iteration_line(const std::string& model, const Iteration& iteration, const Statistics& statistics) {
  const IterationStatistics& step = iteration.statistics;
  const nlohmann::ordered_json line = {
      {"Model", model},
      {"Iteration Counter", step.iteration},
      {"Timestamp", timestamp(iteration.time)},
      {"Active Request Count", step.active_requests},
      {"Max Request Count", statistics.max_requests},
      {"Waiting Requests", step.queued_requests + step.paused_requests},
      {"Paused Requests", step.paused_requests},
      {"Scheduled Requests", step.scheduled_sequences},
      {"Context Requests", step.context_sequences},
      {"Generation Requests", step.generation_sequences},
      {"Total Context Tokens", step.context_tokens},
      {"Total Generation Tokens", step.generation_tokens},
      {"Max KV cache blocks", statistics.kv_cache.total_blocks},
      {"Free KV cache blocks", step.free_blocks},
      {"Used KV cache blocks", step.used_blocks},
      {"Tokens per KV cache block", statistics.kv_cache.tokens_per_block},
      {"Duration us", step.duration.count()},
  };
  return line.dump();
}

}  // namespace inflight::triton
