#pragma once

#include "triton/model_config.h"
#include "triton/triton_api.h"

namespace inflight::triton {

// What all instances of one loaded model share.
class ModelState {
 public:
  explicit ModelState(TRITONBACKEND_Model* model);

  const ModelConfig& config() const { return config_; }

 private:
  const ModelConfig config_;
};

}  // namespace inflight::triton
