#pragma once

#include <nanobind/nanobind.h>

#include "engine/sampling_config.h"

namespace inflight::python {

// Fills a SamplingConfig from keyword arguments named like its fields.
// Throws Error (kInvalidArgument) for a name that is not a field or a value of the wrong type.
SamplingConfig parse_sampling(const nanobind::kwargs& options);

}  // namespace inflight::python
