#pragma once

#include <cstdint>
#include <span>

#include "batch_manager/batch_manager.h"
#include "triton/handles.h"
#include "triton/late_ends.h"
#include "triton/model_state.h"
#include "triton/pending_request.h"

namespace inflight::triton {

// One loaded engine with its batch manager.
class InstanceState {
 public:
  InstanceState(const ModelState& model, TRITONBACKEND_ModelInstance* instance);

  // Takes the requests and returns at once: each is read, submitted and released. Every one gets its end later, from
  // the batch manager's delivery thread, or here if it is refused.
  void execute(std::span<TRITONBACKEND_Request* const> requests) noexcept;

 private:
  // False when the request is refused.
  bool start(TRITONBACKEND_Request* request) noexcept;
  void submit(TRITONBACKEND_Request* request, ResponseFactoryHandle& factory);

  const ModelConfig& config_;
  TRITONBACKEND_ModelInstance* const instance_;
  RunningRequests running_;
  LateEnds late_ends_;
  BatchManager batch_manager_;  // last: the requests that it ends when it is destroyed use the above
};

}  // namespace inflight::triton
