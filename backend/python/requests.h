#pragma once

#include <nanobind/nanobind.h>

#include "batch_manager/request.h"

namespace inflight::python {

// A Request from keyword arguments: the fields of Request, SamplingConfig, BeamSearchConfig and KvCacheRetention under
// their names in C++, and what bind_batch_manager() documents. Throws Error (kInvalidArgument) naming the argument.
Request parse_request(nanobind::handle input_ids, nanobind::handle max_new_tokens, const nanobind::kwargs& options);

}  // namespace inflight::python
