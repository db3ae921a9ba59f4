#pragma once

#include "batch_manager/request.h"
#include "engine/engine.h"
#include "triton/request/sequence_tensors.h"

namespace inflight::triton {

// Both leave what the client did not send at its default.
//
// An end_id that is one of the model's own end ids stands for all of them: clients take it from the tokenizer, which
// knows one only.
SamplingConfig read_sampling(const SequenceTensors& tensors, const EngineInfo& engine);
BeamSearchConfig read_beam_search(const SequenceTensors& tensors);

}  // namespace inflight::triton
