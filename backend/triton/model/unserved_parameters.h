#pragma once

#include "triton/model/parameters.h"

namespace inflight::triton {

// Parameters of TensorRT-LLM that this version serves in one way only. Throws kUnsupported naming the file, the
// parameter and its value for one that asks for anything else. Logs those that have no effect on this engine.
void refuse_unserved(const Parameters& parameters);

}  // namespace inflight::triton
