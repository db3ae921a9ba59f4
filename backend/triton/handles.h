#pragma once

#include <memory>

#include "triton/triton_api.h"

namespace inflight::triton {

struct ResponseFactoryDeleter {
  void operator()(TRITONBACKEND_ResponseFactory* factory) const { TRITONBACKEND_ResponseFactoryDelete(factory); }
};
struct ResponseDeleter {
  void operator()(TRITONBACKEND_Response* response) const { TRITONBACKEND_ResponseDelete(response); }
};
struct MessageDeleter {
  void operator()(TRITONSERVER_Message* message) const { TRITONSERVER_MessageDelete(message); }
};
struct ErrorDeleter {
  void operator()(TRITONSERVER_Error* error) const { TRITONSERVER_ErrorDelete(error); }
};

using ResponseFactoryHandle = std::unique_ptr<TRITONBACKEND_ResponseFactory, ResponseFactoryDeleter>;
using ResponseHandle = std::unique_ptr<TRITONBACKEND_Response, ResponseDeleter>;
using MessageHandle = std::unique_ptr<TRITONSERVER_Message, MessageDeleter>;
using ErrorHandle = std::unique_ptr<TRITONSERVER_Error, ErrorDeleter>;

}  // namespace inflight::triton
