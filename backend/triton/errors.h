#pragma once

#include <exception>

#include "triton/handles.h"

namespace inflight::triton {

// Throws the error that a Triton function returned as inflight::Error; nullptr is success.
void check(TRITONSERVER_Error* error);

// Logs it instead, where nothing better can be done about it.
void log_if_error(TRITONSERVER_Error* error) noexcept;

// inflight::Error keeps its code; any other exception becomes an internal error.
ErrorHandle to_triton_error(const std::exception& exception) noexcept;

// The body of an entry point: what it throws is returned to the server.
template <class Body>
TRITONSERVER_Error* returning_errors(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const std::exception& exception) {
    return to_triton_error(exception).release();
  }
}

}  // namespace inflight::triton
