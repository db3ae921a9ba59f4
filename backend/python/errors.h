#pragma once

#include <nanobind/nanobind.h>

#include "common/error.h"

namespace inflight::python {

// The inflight.errors.InflightError that stands for `error`. Needs the GIL.
nanobind::object to_python(const Error& error);

}  // namespace inflight::python
