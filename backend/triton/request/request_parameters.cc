#include "triton/request/request_parameters.h"

#include <cmath>
#include <string_view>

#include "common/error.h"
#include "triton/errors.h"
#include "triton/request/unknown_names.h"

namespace inflight::triton {
namespace {

constexpr const char* kContextAndGeneration = "context_and_generation";

double read_number(const char* name, TRITONSERVER_ParameterType type, const void* value) {
  if (type == TRITONSERVER_PARAMETER_INT) return static_cast<double>(*static_cast<const int64_t*>(value));
  if (type == TRITONSERVER_PARAMETER_DOUBLE) return *static_cast<const double*>(value);
  throw_error(ErrorCode::kInvalidArgument, "request parameter ", name, " must be a number");
}

std::chrono::microseconds read_timeout(double microseconds) {
  constexpr double kLongest = 1e15;  // 30 years
  if (!(microseconds > 0 && microseconds <= kLongest)) {
    throw_error(ErrorCode::kInvalidArgument, "request parameter timeout is ", microseconds,
                "; it must be a number of microseconds above 0, and at most ", kLongest);
  }
  return std::chrono::microseconds(std::llround(microseconds));
}

// TensorRT-LLM's disaggregated serving computes prompts and generates in different servers.
void check_request_type(TRITONSERVER_ParameterType type, const void* value) {
  if (type != TRITONSERVER_PARAMETER_STRING) {
    throw_error(ErrorCode::kInvalidArgument, "request parameter ", kRequestType, " must be a string");
  }
  const std::string_view text = static_cast<const char*>(value);
  if (text == kContextAndGeneration) return;
  throw_error(ErrorCode::kUnsupported, "request parameter ", kRequestType, " is \"", text,
              "\"; this version serves only ", kContextAndGeneration, ", where one server does both: leave it out");
}

}  // namespace

RequestParameters read_request_parameters(TRITONBACKEND_Request* request) {
  RequestParameters parameters;
  uint32_t count;
  check(TRITONBACKEND_RequestParameterCount(request, &count));
  for (uint32_t i = 0; i < count; ++i) {
    const char* name;
    TRITONSERVER_ParameterType type;
    const void* value;
    check(TRITONBACKEND_RequestParameter(request, i, &name, &type, &value));
    if (name == std::string_view(kRequestPriority)) {
      parameters.priority = static_cast<float>(read_number(name, type, value));
    } else if (name == std::string_view(kTimeout)) {
      parameters.timeout = read_timeout(read_number(name, type, value));
    } else if (name == std::string_view(kRequestType)) {
      check_request_type(type, value);
    } else if (name != std::string_view(kStreaming)) {
      refuse_near_miss(name);
    }
  }
  uint64_t timeout;
  check(TRITONBACKEND_InferenceRequestTimeoutMicroseconds(request, &timeout));
  if (timeout > 0) parameters.timeout = read_timeout(static_cast<double>(timeout));
  return parameters;
}

}  // namespace inflight::triton
