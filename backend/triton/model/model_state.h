#pragma once

#include "triton/metrics/metric_group.h"
#include "triton/model/backend_config.h"
#include "triton/triton_api.h"

namespace inflight::triton {

// What all instances of one loaded model share.
class ModelState {
 public:
  explicit ModelState(TRITONBACKEND_Model* model);

  const BackendConfig& config() const { return config_; }
  const MetricOwner& metric_owner() const { return metric_owner_; }
  TRITONSERVER_Server* server() const { return server_; }

 private:
  const BackendConfig config_;
  const MetricOwner metric_owner_;
  TRITONSERVER_Server* const server_;
};

}  // namespace inflight::triton
