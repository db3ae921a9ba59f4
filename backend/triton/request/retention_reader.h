#pragma once

#include "batch_manager/request.h"
#include "triton/request/sequence_tensors.h"

namespace inflight::triton {

// The retention_* tensors, as TensorRT-LLM has them: the ranges' starts, ends and priorities go together, of the same
// number, and so do durations where they are given. An end of -1 is the prompt's end, a duration of -1 none.
// Throws kInvalidArgument naming the tensor that does not fit.
KvCacheRetention read_retention(const SequenceTensors& tensors);

}  // namespace inflight::triton
