#pragma once

#include <string>
#include <vector>

#include "trace_run.h"

namespace inflight::test {

// What is wrong with a trace's result, one line each: requests that ended other than once, tokens, log-probs or logits
// other than those the request gets alone, blocks that nobody gave back.
std::vector<std::string> find_faults(const Trace& trace, const TraceResult& result, SoloRuns& solo_runs);

}  // namespace inflight::test
