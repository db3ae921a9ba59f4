#include "triton/model/model_state.h"

#include "common/error.h"
#include "triton/errors.h"

namespace inflight::triton {
namespace {

std::filesystem::path model_directory(TRITONBACKEND_Model* model) {
  TRITONBACKEND_ArtifactType type;
  const char* location;
  check(TRITONBACKEND_ModelRepository(model, &type, &location));
  if (type != TRITONBACKEND_ARTIFACT_FILESYSTEM) {
    throw_error(ErrorCode::kUnsupported, "model repository ", location, " is not a file system");
  }
  return location;
}

BackendConfig read_config(TRITONBACKEND_Model* model) {
  TRITONSERVER_Message* message;
  check(TRITONBACKEND_ModelConfig(model, 1, &message));
  const MessageHandle handle(message);
  const char* json;
  size_t size;
  check(TRITONSERVER_MessageSerializeToJson(message, &json, &size));
  return parse_backend_config({json, size}, model_directory(model));
}

MetricOwner read_metric_owner(TRITONBACKEND_Model* model) {
  const char* name;
  check(TRITONBACKEND_ModelName(model, &name));
  MetricOwner owner{name, 0};
  check(TRITONBACKEND_ModelVersion(model, &owner.version));
  return owner;
}

TRITONSERVER_Server* server_of(TRITONBACKEND_Model* model) {
  TRITONSERVER_Server* server;
  check(TRITONBACKEND_ModelServer(model, &server));
  return server;
}

}  // namespace

ModelState::ModelState(TRITONBACKEND_Model* model)
    : config_(read_config(model)), metric_owner_(read_metric_owner(model)), server_(server_of(model)) {}

}  // namespace inflight::triton
