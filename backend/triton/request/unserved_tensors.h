#pragma once

#include "triton/request/input_tensors.h"

namespace inflight::triton {

// Inputs of TensorRT-LLM's contract that this version does not serve are accepted while they ask for nothing:
// empty, or at the value that stands for "off". Throws kUnsupported naming the tensor and what it holds for any
// other value. A tensor that the contract does not have is ignored, as in TensorRT-LLM, and logged once.
void refuse_unserved(const InputTensors& inputs);

}  // namespace inflight::triton
