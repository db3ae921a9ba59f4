// The oracle: whatever the scheduler does, each request's tokens equal those it gets alone.
//
//   trace_replay [--tokenizer FOLDER] [--patience SECONDS]
//
// Reads traces (trace.h), one line of JSON each, and answers each with one line: {"faults": [what is wrong, …],
// "seen": {counts that tell what the trace made happen}, "hangs": false}. A trace that hangs ends the program.

#include <unistd.h>

#include <iostream>
#include <string>

#include "common/logging.h"
#include "trace_compare.h"

using namespace inflight;
using namespace inflight::test;
using nlohmann::json;

namespace {

json counts(const TraceResult& result) {
  const Statistics& statistics = result.statistics;
  const auto count_ends = [&](FinishReason reason) {
    return std::ranges::count_if(result.outcomes, [&](const RequestOutcome& outcome) {
      return !outcome.sequences.empty() && outcome.sequences[0].finish_reason == reason;
    });
  };
  return {{"requests", result.requests.size()},
          {"refused", result.refusals.size() - std::ranges::count(result.refusals, std::string())},
          {"failed", std::ranges::count_if(result.outcomes, &RequestOutcome::has_failed)},
          {"cancelled", count_ends(FinishReason::kCancelled)},
          {"ended_by_end_id", count_ends(FinishReason::kEndId)},
          {"ended_by_stop_words", count_ends(FinishReason::kStopWords)},
          {"steps", result.steps},
          {"pauses", statistics.pauses},
          {"draft_tokens", statistics.draft_tokens},
          {"accepted_draft_tokens", statistics.accepted_draft_tokens},
          {"reused_blocks", statistics.kv_cache.reused_blocks},
          {"evicted_blocks", statistics.kv_cache.evicted_blocks},
          {"offloaded_blocks", statistics.kv_cache.offloaded_blocks},
          {"onboarded_blocks", statistics.kv_cache.onboarded_blocks}};
}

void answer(const std::vector<std::string>& faults, const json& seen = json::object(), bool hangs = false) {
  std::cout << json{{"faults", faults}, {"seen", seen}, {"hangs", hangs}}.dump() << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  set_log_sink([](LogLevel, const std::string&) {});
  TraceModel model;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--tokenizer") model.tokenizer_dir = argv[i + 1];
    if (option == "--patience") model.patience = std::chrono::seconds(std::stoi(argv[i + 1]));
  }
  SoloRuns solo_runs(model);
  for (std::string line; std::getline(std::cin, line);) {
    try {
      const Trace trace = read_trace(json::parse(line));
      const TraceResult result = run_trace(trace, model, solo_runs);
      answer(find_faults(trace, result, solo_runs), counts(result));
    } catch (const Hang& hang) {
      answer({hang.message}, json::object(), true);
      _exit(1);  // threads that wait for ever cannot be joined
    } catch (const std::exception& error) {
      answer({concat("the trace fails: ", error.what())});
    }
  }
  return 0;
}
