#pragma once

#include <chrono>

#include "batch_manager/statistics.h"
#include "triton/metrics/metric_group.h"

namespace inflight::triton {

// What one model shows on Triton's /metrics: TensorRT-LLM's families (its triton_backend's custom_metrics_reporter),
// and our own. docs/metrics.md says what each means.
class Metrics {
 public:
  // `is_static_batch`: TensorRT-LLM names one family after the kind of batching.
  Metrics(const MetricOwner& owner, bool is_static_batch);

  // Brings up to date what is polled. `last` is the last step, made at `time`; one that holds nothing while none runs.
  // `resident_memory`: of this process, in bytes.
  void report(const Statistics& statistics, const StepStatistics& last, std::chrono::system_clock::time_point time,
              int64_t resident_memory) noexcept;

  // A request has ended. From another thread than report().
  void observe(const RequestTimes& times) noexcept;

 private:
  const bool is_static_batch_;

  Gauges requests_;
  Gauges runtime_memory_;
  Gauges kv_cache_blocks_;
  Counters disaggregated_serving_;
  Gauges batching_;
  Gauges general_;
  Histogram input_tokens_;
  Histogram output_tokens_;

  Histogram queue_time_;
  Histogram time_to_first_token_;
  Histogram inter_token_latency_;
  Histogram request_time_;
  Counters ended_requests_;
  Counters tokens_;
  Counters draft_tokens_;
  Counters pauses_;
  Counters cache_events_;
  Gauges cache_tiers_;
  Counters server_restarts_;
};

}  // namespace inflight::triton
