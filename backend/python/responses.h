#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "batch_manager/request.h"

namespace inflight::python {

// A Response as a Python object that owns it; rows of logits have vocab_size columns.
nanobind::object to_python(const Response& response, int32_t vocab_size);

// "end_id", "stop_words", "length" or "cancelled"; nullptr for kNone.
const char* finish_reason_name(FinishReason reason);

}  // namespace inflight::python
