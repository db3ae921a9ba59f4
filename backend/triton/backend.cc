// The entry points that Triton calls, https://github.com/triton-inference-server/backend#triton-backend-api.

#include <memory>

#include "common/error.h"
#include "common/logging.h"
#include "triton/errors.h"
#include "triton/model/instance_state.h"
#include "triton/model/model_state.h"
#include "triton/shutdown.h"

using namespace inflight;
using namespace inflight::triton;

namespace {

TRITONSERVER_LogLevel to_triton_level(LogLevel level) {
  switch (level) {
    case LogLevel::kVerbose: return TRITONSERVER_LOG_VERBOSE;
    case LogLevel::kInfo: return TRITONSERVER_LOG_INFO;
    case LogLevel::kWarning: return TRITONSERVER_LOG_WARN;
    case LogLevel::kError: return TRITONSERVER_LOG_ERROR;
  }
  return TRITONSERVER_LOG_ERROR;
}

void log_to_triton(LogLevel level, const std::string& message) {
  const auto triton_level = to_triton_level(level);
  if (TRITONSERVER_LogIsEnabled(triton_level)) {
    log_if_error(TRITONSERVER_LogMessage(triton_level, "inflight", 0, message.c_str()));
  }
}

void check_api_version() {
  uint32_t major, minor;
  check(TRITONBACKEND_ApiVersion(&major, &minor));
  if (major != TRITONBACKEND_API_VERSION_MAJOR || minor < TRITONBACKEND_API_VERSION_MINOR) {
    throw_error(ErrorCode::kUnsupported, "this tritonserver has the backend API ", major, ".", minor,
                "; the inflight backend needs ", TRITONBACKEND_API_VERSION_MAJOR, ".", TRITONBACKEND_API_VERSION_MINOR,
                " (tritonserver 2.51) or a later ", TRITONBACKEND_API_VERSION_MAJOR, ".x");
  }
}

ModelState* state_of(TRITONBACKEND_Model* model) {
  void* state;
  check(TRITONBACKEND_ModelState(model, &state));
  return static_cast<ModelState*>(state);
}

InstanceState* state_of(TRITONBACKEND_ModelInstance* instance) {
  void* state;
  check(TRITONBACKEND_ModelInstanceState(instance, &state));
  return static_cast<InstanceState*>(state);
}

}  // namespace

#define INFLIGHT_EXPORT extern "C" __attribute__((visibility("default")))

INFLIGHT_EXPORT TRITONSERVER_Error* TRITONBACKEND_Initialize(TRITONBACKEND_Backend*) {
  return returning_errors([] {
    check_api_version();
    set_log_sink(log_to_triton);
    watch_for_shutdown();
  });
}

INFLIGHT_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model* model) {
  return returning_errors([&] {
    auto state = std::make_unique<ModelState>(model);
    check(TRITONBACKEND_ModelSetState(model, state.get()));
    state.release();
  });
}

INFLIGHT_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model* model) {
  return returning_errors([&] { delete state_of(model); });
}

INFLIGHT_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance* instance) {
  return returning_errors([&] {
    TRITONBACKEND_Model* model;
    check(TRITONBACKEND_ModelInstanceModel(instance, &model));
    auto state = std::make_unique<InstanceState>(*state_of(model), instance);
    check(TRITONBACKEND_ModelInstanceSetState(instance, state.get()));
    state.release();
  });
}

// Ends every request that is left before it returns.
INFLIGHT_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance* instance) {
  return returning_errors([&] { delete state_of(instance); });
}

INFLIGHT_EXPORT TRITONSERVER_Error* TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance* instance,
                                                                       TRITONBACKEND_Request** requests,
                                                                       const uint32_t request_count) {
  return returning_errors([&] { state_of(instance)->execute({requests, request_count}); });
}
