#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "trace.h"
#include "trace_outcome.h"

namespace inflight::test {

// A trace that does not come to its end.
struct Hang {
  std::string message;
};

// The engine directories of the traces' model, which differ in tokens_per_block, and the folder of its tokenizer.
struct TraceModel {
  const std::filesystem::path& engine(int32_t tokens_per_block);

  std::filesystem::path tokenizer_dir;
  std::chrono::milliseconds patience{20000};  // for one request or trace
  std::map<int32_t, std::filesystem::path> engines = {};
};

// What requests get alone, each on a fresh batch manager without reuse or any other option.
class SoloRuns {
 public:
  explicit SoloRuns(TraceModel& model) : model_(model) {}

  // Of a request's sequence (or, with beam search, of the request). Everything that must not matter is left out:
  // streaming, priority, drafts, retention, cancels. Kept for the next time.
  const RequestOutcome& run(const TraceRequest& request, int32_t sequence, const TraceOptions& options);

 private:
  TraceModel& model_;
  std::map<std::string, RequestOutcome> outcomes_;
};

// A request's stay in the batch manager, in steps since the start.
struct Stay {
  int64_t submitted = 0;
  std::optional<int64_t> ended;  // when BatchManagerOptions::on_request_end said so
};

struct TraceResult {
  std::vector<TraceRequest> requests;    // in the order of submission
  std::vector<Stay> stays;               // parallel
  std::vector<RequestOutcome> outcomes;  // parallel
  std::vector<std::string> refusals;     // parallel: why submit() threw, or empty
  std::vector<std::string> violations;   // of contracts between the batch manager and its engine
  Statistics statistics;                 // when all had ended; zero if the trace stops the batch manager
  int64_t steps = 0;
  bool is_stopped = false;
};

// Runs a trace on a batch manager. Throws Hang when it does not come to its end.
TraceResult run_trace(const Trace& trace, TraceModel& model, SoloRuns& solo_runs);

}  // namespace inflight::test
