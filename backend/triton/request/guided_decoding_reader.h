#pragma once

#include <optional>

#include "batch_manager/request.h"
#include "triton/request/sequence_tensors.h"

namespace inflight::triton {

// guided_decoding_guide_type, with TensorRT-LLM's names json, json_schema, regex and ebnf_grammar, and our choice; and
// guided_decoding_guide, which says what for all but json. An empty type is none. Throws kInvalidArgument naming the
// tensor and its value.
std::optional<GuidedDecoding> read_guided_decoding(const SequenceTensors& tensors);

}  // namespace inflight::triton
