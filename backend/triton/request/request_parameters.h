#pragma once

#include <chrono>
#include <optional>

#include "triton/triton_api.h"

namespace inflight::triton {

inline constexpr const char* kRequestPriority = "request_priority";
inline constexpr const char* kTimeout = "timeout";
inline constexpr const char* kRequestType = "request_type";
// TensorRT-LLM's clients send it beside the input `streaming`, which is what counts.
inline constexpr const char* kStreaming = "Streaming";
inline constexpr const char* kRequestParameters[] = {kRequestPriority, kTimeout, kRequestType, kStreaming};

// What a request says beside its tensors.
struct RequestParameters {
  // The request parameter `request_priority`, a number; checked by the batch manager. (Triton hands its own `priority`
  // to its dynamic batcher only, never to a backend.)
  std::optional<float> priority;
  // From now on: Triton's `timeout`, in microseconds, or, as its generate endpoints do not read that one, the request
  // parameter `timeout`.
  std::optional<std::chrono::microseconds> timeout;
};

// Throws kInvalidArgument naming a parameter that cannot be read, or that looks like a misspelled one, and kUnsupported
// for a request_type other than context_and_generation.
RequestParameters read_request_parameters(TRITONBACKEND_Request* request);

}  // namespace inflight::triton
