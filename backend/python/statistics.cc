#include "python/statistics.h"

#include <chrono>
#include <optional>

#include "python/responses.h"

namespace nb = nanobind;

namespace inflight::python {
namespace {

double seconds(std::chrono::microseconds duration) { return std::chrono::duration<double>(duration).count(); }

nb::object seconds(std::optional<std::chrono::microseconds> duration) {
  return duration ? nb::object(nb::float_(seconds(*duration))) : nb::object(nb::none());
}

nb::dict to_python(const KvCacheStatistics& statistics) {
  nb::dict result;
  result["total_blocks"] = statistics.total_blocks;
  result["free_blocks"] = statistics.free_blocks;
  result["used_blocks"] = statistics.used_blocks;
  result["cached_blocks"] = statistics.cached_blocks;
  result["total_host_blocks"] = statistics.total_host_blocks;
  result["used_host_blocks"] = statistics.used_host_blocks;
  result["tokens_per_block"] = statistics.tokens_per_block;
  result["allocated_blocks"] = statistics.allocated_blocks;
  result["new_blocks"] = statistics.new_blocks;
  result["reused_blocks"] = statistics.reused_blocks;
  result["evicted_blocks"] = statistics.evicted_blocks;
  result["offloaded_blocks"] = statistics.offloaded_blocks;
  result["onboarded_blocks"] = statistics.onboarded_blocks;
  return result;
}

}  // namespace

nb::dict to_python(const Statistics& statistics) {
  nb::dict result;
  result["iterations"] = statistics.steps;
  result["active_requests"] = statistics.running_sequences;
  result["queued_requests"] = statistics.queued_sequences;
  result["paused_requests"] = statistics.paused_sequences;
  result["max_requests"] = statistics.max_sequences;
  result["free_blocks"] = statistics.free_blocks;
  result["total_blocks"] = statistics.total_blocks;
  result["kv_cache"] = to_python(statistics.kv_cache);
  result["context_tokens"] = statistics.context_tokens;
  result["generated_tokens"] = statistics.generated_tokens;
  result["draft_tokens"] = statistics.draft_tokens;
  result["accepted_draft_tokens"] = statistics.accepted_draft_tokens;
  result["pauses"] = statistics.pauses;
  return result;
}

nb::dict to_python(const StepStatistics& statistics) {
  nb::dict result;
  result["iteration"] = statistics.step;
  result["duration"] = seconds(statistics.duration);
  result["active_requests"] = statistics.running_sequences;
  result["queued_requests"] = statistics.queued_sequences;
  result["paused_requests"] = statistics.paused_sequences;
  result["scheduled_sequences"] = statistics.scheduled_slices;
  result["context_sequences"] = statistics.context_slices;
  result["generation_sequences"] = statistics.generation_slices;
  result["context_tokens"] = statistics.context_tokens;
  result["generation_tokens"] = statistics.generation_tokens;
  result["free_blocks"] = statistics.free_blocks;
  result["used_blocks"] = statistics.used_blocks;
  return result;
}

nb::dict to_python(const RequestTimes& times) {
  nb::dict result;
  result["id"] = times.id;
  result["queue"] = seconds(times.queue);
  result["time_to_first_token"] = seconds(times.time_to_first_token);
  result["inter_token_latency"] = seconds(times.inter_token_latency);
  result["total"] = seconds(times.total);
  result["prompt_tokens"] = times.prompt_tokens;
  result["generated_tokens"] = times.generated_tokens;
  const char* finish_reason = finish_reason_name(times.finish_reason);
  result["finish_reason"] = finish_reason ? nb::object(nb::str(finish_reason)) : nb::object(nb::none());
  result["failed"] = times.failed;
  return result;
}

}  // namespace inflight::python
