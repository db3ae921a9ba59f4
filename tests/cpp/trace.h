#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "batch_manager/batch_manager.h"

// What happens to a batch manager: its options, then requests, cancels and faults in the order of its steps. Written as
// one line of JSON, made by tests/python/oracle/traces.py; the fields' names are those of the structs below.
namespace inflight::test {

// How the batch manager, its engine and the test's wrapper around it are set up.
struct TraceOptions {
  BatchManagerOptions manager;
  EngineOptions engine;
  int32_t tokens_per_block = 4;
  int32_t num_blocks = 0;  // of the KV cache; 0: more than any trace needs
  int32_t num_host_blocks = 0;
  int32_t max_batch_size = 0;  // below the engine's own; 0: its own
  int32_t max_num_tokens = 0;  // likewise
  int32_t copy_delay = 0;  // times that Engine::is_copied answers no
  int32_t max_steps_in_flight = 1;  // more: on a DelayedEngine
};

struct TraceRequest {
  Request request;
  nlohmann::json fields;  // what it was read from
  std::optional<int32_t> cancel_after;  // tokens received
  std::optional<int64_t> is_cancelled_at;  // the step from which Request::is_cancelled says so
  std::optional<int64_t> deadline_ms;  // after submission
  int32_t num_true_drafts = 0;  // draft tokens taken from what it generates alone …
  std::optional<int32_t> wrong_draft;  // … but for this one
};

struct Cancel {
  size_t request;  // index among the submissions
};
struct Fault {
  bool in_launch;  // else in finish()
};
struct Stop {};

struct TraceEvent {
  int64_t at = 0;  // happens while this step runs, or, if none runs any more, at once
  std::variant<TraceRequest, Cancel, Fault, Stop> action;
};

struct Trace {
  TraceOptions options;
  std::vector<TraceEvent> events;
};

// Throws std::exception for JSON that is not a trace; unknown fields are errors.
Trace read_trace(const nlohmann::json& json);
TraceRequest read_request(const nlohmann::json& json);

}  // namespace inflight::test
