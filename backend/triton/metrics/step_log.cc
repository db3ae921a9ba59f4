#include "triton/metrics/step_log.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "common/error.h"

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

std::string step_line(const std::string& model, const EndedStep& ended, const Statistics& statistics,
                      bool is_static_batch, int64_t resident_memory) {
  const StepStatistics& step = ended.statistics;
  const KvCacheStatistics& cache = statistics.kv_cache;
  nlohmann::ordered_json line = {
      {"Active Request Count", step.running_sequences},
      {"Iteration Counter", step.step},
      {"Max Request Count", statistics.max_sequences},
      {"Runtime CPU Memory Usage", resident_memory},
      {"Runtime GPU Memory Usage", 0},
      {"Runtime Pinned Memory Usage", 0},
      {"Timestamp", timestamp(ended.time)},
      {"Context Requests", step.context_slices},
      {"Scheduled Requests", step.scheduled_slices},
      {"Total Context Tokens", step.context_tokens},
      {"Waiting Requests", step.queued_sequences + step.paused_sequences},
      {"Free KV cache blocks", step.free_blocks},
      {"Max KV cache blocks", cache.total_blocks},
      {"Tokens per KV cache block", cache.tokens_per_block},
      {"Used KV cache blocks", step.used_blocks},
      {"Reused KV cache blocks", cache.reused_blocks},
      {"Fraction used KV cache blocks", static_cast<double>(step.used_blocks) / std::max(cache.total_blocks, 1)},
      {"KV cache transfer time", 0},
      {"Request count", 0},
  };
  if (is_static_batch) {
    line["Total Generation Tokens"] = step.generation_tokens;
    line["Empty Generation Slots"] = statistics.max_sequences - step.scheduled_slices;
  } else {
    line["Generation Requests"] = step.generation_slices;
    line["MicroBatch ID"] = 0;
    line["Paused Requests"] = step.paused_sequences;
  }
  return concat(model, ", ", step.duration.count(), " us: [TensorRT-LLM][INFO] ", line.dump());
}

}  // namespace inflight::triton
