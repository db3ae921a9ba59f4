#pragma once

#include <nanobind/nanobind.h>

// One function a file; each adds its classes and functions to inflight._native. Errors of the C++ code
// arrive in Python as inflight.errors.InflightError, blocking calls release the GIL.
namespace inflight::python {

void bind_errors(nanobind::module_& module);
void bind_packing(nanobind::module_& module);
void bind_responses(nanobind::module_& module);
void bind_batch_manager(nanobind::module_& module);
void bind_token_texts(nanobind::module_& module);
void bind_engine(nanobind::module_& module);

}  // namespace inflight::python
