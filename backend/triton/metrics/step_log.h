#pragma once

#include <cstdint>
#include <string>

#include "batch_manager/statistics.h"
#include "triton/metrics/step_history.h"

namespace inflight::triton {

// A step as a line of the log: the model and the step's time, then what TensorRT-LLM writes of a step, so that what
// reads its log finds the same here: "[TensorRT-LLM][INFO] " and a JSON object with its keys and no others, which are
// those of its metrics. `resident_memory`: of this process, in bytes.
std::string step_line(const std::string& model, const EndedStep& ended, const Statistics& statistics,
                      bool is_static_batch, int64_t resident_memory);

}  // namespace inflight::triton
