#pragma once

#include <string>

#include "triton/metrics/iteration_history.h"

namespace inflight::triton {

// The line of JSON that the log has for a step: TensorRT-LLM's keys, where it has one, then our own.
// `statistics` gives what is the same for all steps of a model.
std::string iteration_line(const std::string& model, const Iteration& iteration, const Statistics& statistics);

}  // namespace inflight::triton
