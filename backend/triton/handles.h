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
struct ParameterDeleter {
  void operator()(TRITONSERVER_Parameter* parameter) const { TRITONSERVER_ParameterDelete(parameter); }
};
struct MetricFamilyDeleter {
  void operator()(TRITONSERVER_MetricFamily* family) const { TRITONSERVER_MetricFamilyDelete(family); }
};
struct MetricArgsDeleter {
  void operator()(TRITONSERVER_MetricArgs* args) const { TRITONSERVER_MetricArgsDelete(args); }
};
struct MetricDeleter {
  void operator()(TRITONSERVER_Metric* metric) const { TRITONSERVER_MetricDelete(metric); }
};

using ResponseFactoryHandle = std::unique_ptr<TRITONBACKEND_ResponseFactory, ResponseFactoryDeleter>;
using ResponseHandle = std::unique_ptr<TRITONBACKEND_Response, ResponseDeleter>;
using MessageHandle = std::unique_ptr<TRITONSERVER_Message, MessageDeleter>;
using ErrorHandle = std::unique_ptr<TRITONSERVER_Error, ErrorDeleter>;
using ParameterHandle = std::unique_ptr<TRITONSERVER_Parameter, ParameterDeleter>;
using MetricFamilyHandle = std::unique_ptr<TRITONSERVER_MetricFamily, MetricFamilyDeleter>;
using MetricArgsHandle = std::unique_ptr<TRITONSERVER_MetricArgs, MetricArgsDeleter>;
using MetricHandle = std::unique_ptr<TRITONSERVER_Metric, MetricDeleter>;

}  // namespace inflight::triton
