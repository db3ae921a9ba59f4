#include "triton/metrics/metrics.h"

#include <algorithm>
#include <cstdlib>

namespace inflight::triton {
namespace {

using Seconds = std::chrono::duration<double>;

const std::vector<double> kTokenCounts = {10, 50, 100, 500, 1000};  // TensorRT-LLM's
const std::vector<double> kLatencies = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,  0.25,
                                        0.5,   1.0,    2.5,   5.0,  10.0,  25.0, 50.0, 100.0};

// Positions in the label values of inflight_ended_requests_total.
enum Outcome : size_t { kCompleted, kCancelled, kFailed };

Outcome outcome(const RequestTimes& times) {
  if (times.failed) return Outcome::kFailed;
  return times.finish_reason == FinishReason::kCancelled ? Outcome::kCancelled : Outcome::kCompleted;
}

Gauges batching_gauges(const MetricOwner& owner, bool is_static_batch) {
  if (is_static_batch) {
    return {owner,
            "nv_trt_llm_v1_metrics",
            "TRT LLM v1-specific metrics",
            "v1_specific_metric",
            {"total_context_tokens", "total_generation_tokens", "empty_generation_slots"}};
  }
  return {owner,
          "nv_trt_llm_inflight_batcher_metrics",
          "TRT LLM inflight_batcher-specific metrics",
          "inflight_batcher_specific_metric",
          {"total_context_tokens", "generation_requests", "micro_batch_id", "paused_requests"}};
}

// The launcher counts: the process that was started again knows nothing of the one before.
uint64_t server_restarts() {
  const char* const restarts = std::getenv("INFLIGHT_SERVER_RESTARTS");
  return restarts == nullptr ? 0 : std::strtoull(restarts, nullptr, 10);
}

}  // namespace

Metrics::Metrics(const MetricOwner& owner, bool is_static_batch)
    : is_static_batch_(is_static_batch),
      requests_(owner, "nv_trt_llm_request_metrics", "TRT LLM request metrics", "request_type",
                {"active", "max", "scheduled", "context", "waiting"}),
      runtime_memory_(owner, "nv_trt_llm_runtime_memory_metrics", "TRT LLM runtime memory metrics", "memory_type",
                      {"cpu", "gpu", "pinned"}),
      kv_cache_blocks_(owner, "nv_trt_llm_kv_cache_block_metrics", "TRT LLM KV cache block metrics",
                       "kv_cache_block_type", {"max", "free", "used", "tokens_per", "reused", "fraction"}),
      disaggregated_serving_(owner, "nv_trt_llm_disaggregated_serving_metrics", "TRT LLM disaggregated serving metrics",
                             "disaggregated_serving_type", {"kv_cache_transfer_ms", "request_count"}),
      batching_(batching_gauges(owner, is_static_batch)),
      general_(owner, "nv_trt_llm_general_metrics", "General TRT LLM metrics", "general_type",
               {"timestamp", "iteration_counter"}),
      input_tokens_(owner, "nv_llm_input_token_len", "TRT LLM response metrics", kTokenCounts, "response_metric_type",
                    "total_input_tokens"),
      output_tokens_(owner, "nv_llm_output_token_len", "TRT LLM response metrics", kTokenCounts, "response_metric_type",
                     "total_output_tokens"),
      queue_time_(owner, "inflight_queue_time_seconds", "From a request's arrival to its first step", kLatencies),
      time_to_first_token_(owner, "inflight_time_to_first_token_seconds",
                           "From a request's arrival to its first generated token", kLatencies),
      inter_token_latency_(owner, "inflight_inter_token_latency_seconds",
                           "Mean over a request's generated tokens after the first", kLatencies),
      request_time_(owner, "inflight_request_time_seconds", "From a request's arrival to its end", kLatencies),
      ended_requests_(owner, "inflight_ended_requests_total", "Requests that have ended", "outcome",
                      {"completed", "cancelled", "failed"}),
      tokens_(owner, "inflight_tokens_total", "Tokens computed of prompts, and generated", "phase",
              {"context", "generation"}),
      draft_tokens_(owner, "inflight_draft_tokens_total", "Draft tokens of speculative decoding", "outcome",
                    {"proposed", "accepted"}),
      pauses_(owner, "inflight_pauses_total", "Sequences that were paused for want of KV-cache blocks", nullptr, {}),
      cache_events_(owner, "inflight_kv_cache_block_events_total", "What has happened to KV-cache blocks", "event",
                    {"allocated", "new", "reused", "evicted", "offloaded", "onboarded"}),
      cache_tiers_(owner, "inflight_kv_cache_blocks", "KV-cache blocks that hold tokens for reuse, and the host tier's",
                   "kind", {"cached", "host_max", "host_used"}),
      server_restarts_(owner, "inflight_server_restarts_total", "Restarts of the server by its launcher", nullptr, {}) {
  server_restarts_.set_totals({server_restarts()});
}

void Metrics::report(const Statistics& statistics, const StepStatistics& last,
                     std::chrono::system_clock::time_point time, int64_t resident_memory) noexcept {
  const KvCacheStatistics& cache = statistics.kv_cache;
  const double used_fraction = static_cast<double>(cache.used_blocks) / std::max(cache.total_blocks, 1);
  const auto timestamp = std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
  requests_.set(statistics.running_sequences, statistics.max_sequences, last.scheduled_slices, last.context_slices,
                statistics.queued_sequences + statistics.paused_sequences);
  runtime_memory_.set(resident_memory, 0, 0);
  kv_cache_blocks_.set(cache.total_blocks, cache.free_blocks, cache.used_blocks, cache.tokens_per_block,
                       cache.reused_blocks, used_fraction);
  if (is_static_batch_) {
    batching_.set(last.context_tokens, last.generation_tokens, statistics.max_sequences - last.scheduled_slices);
  } else {
    batching_.set(last.context_tokens, last.generation_slices, 0, statistics.paused_sequences);
  }
  general_.set(timestamp, statistics.steps);
  tokens_.set_totals({statistics.context_tokens, statistics.generated_tokens});
  draft_tokens_.set_totals({statistics.draft_tokens, statistics.accepted_draft_tokens});
  pauses_.set_totals({statistics.pauses});
  cache_events_.set_totals({cache.allocated_blocks, cache.new_blocks, cache.reused_blocks, cache.evicted_blocks,
                            cache.offloaded_blocks, cache.onboarded_blocks});
  cache_tiers_.set(cache.cached_blocks, cache.total_host_blocks, cache.used_host_blocks);
}

void Metrics::observe(const RequestTimes& times) noexcept {
  ended_requests_.increment(outcome(times));
  input_tokens_.observe(times.prompt_tokens);
  output_tokens_.observe(times.generated_tokens);
  queue_time_.observe(Seconds(times.queue).count());
  request_time_.observe(Seconds(times.total).count());
  if (times.time_to_first_token) time_to_first_token_.observe(Seconds(*times.time_to_first_token).count());
  if (times.inter_token_latency) inter_token_latency_.observe(Seconds(*times.inter_token_latency).count());
}

}  // namespace inflight::triton
