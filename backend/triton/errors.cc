#include "triton/errors.h"

#include "common/error.h"

namespace inflight::triton {
namespace {

TRITONSERVER_Error_Code to_triton_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return TRITONSERVER_ERROR_INVALID_ARG;
    case ErrorCode::kNotFound: return TRITONSERVER_ERROR_NOT_FOUND;
    case ErrorCode::kUnavailable: return TRITONSERVER_ERROR_UNAVAILABLE;
    case ErrorCode::kUnsupported: return TRITONSERVER_ERROR_UNSUPPORTED;
    case ErrorCode::kCancelled: return TRITONSERVER_ERROR_CANCELLED;
    case ErrorCode::kInternal:
    case ErrorCode::kEngineLost: return TRITONSERVER_ERROR_INTERNAL;
  }
  return TRITONSERVER_ERROR_UNKNOWN;
}

ErrorCode from_triton_code(TRITONSERVER_Error_Code code) {
  switch (code) {
    case TRITONSERVER_ERROR_INVALID_ARG:
    case TRITONSERVER_ERROR_ALREADY_EXISTS: return ErrorCode::kInvalidArgument;
    case TRITONSERVER_ERROR_NOT_FOUND: return ErrorCode::kNotFound;
    case TRITONSERVER_ERROR_UNAVAILABLE: return ErrorCode::kUnavailable;
    case TRITONSERVER_ERROR_UNSUPPORTED: return ErrorCode::kUnsupported;
    case TRITONSERVER_ERROR_CANCELLED: return ErrorCode::kCancelled;
    default: return ErrorCode::kInternal;
  }
}

}  // namespace

void check(TRITONSERVER_Error* error) {
  if (error == nullptr) return;
  const ErrorHandle handle(error);
  throw Error(from_triton_code(TRITONSERVER_ErrorCode(error)), TRITONSERVER_ErrorMessage(error));
}

void log_if_error(TRITONSERVER_Error* error) noexcept {
  if (error == nullptr) return;
  const ErrorHandle handle(error);
  TRITONSERVER_LogMessage(TRITONSERVER_LOG_ERROR, "inflight", 0, TRITONSERVER_ErrorMessage(error));
}

ErrorHandle to_triton_error(const std::exception& exception) noexcept {
  const auto* error = dynamic_cast<const Error*>(&exception);
  const auto code = error != nullptr ? to_triton_code(error->code()) : TRITONSERVER_ERROR_INTERNAL;
  return ErrorHandle(TRITONSERVER_ErrorNew(code, exception.what()));
}

}  // namespace inflight::triton
