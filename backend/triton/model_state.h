#pragma once

#include "triton/metric_group.h"
#include "triton/model_config.h"
#include "triton/triton_api.h"

namespace inflight::triton {

// What all instances of one loaded model share.
class ModelState {
 public:
  explicit ModelState(TRITONBACKEND_Model* model);

  const ModelConfig& config() const { return config_; }
  const MetricOwner& metric_owner() const { return metric_owner_; }

 private:
  const ModelConfig config_;
  const MetricOwner metric_owner_;
};

}  // namespace inflight::triton
