#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "triton/handles.h"
#include "triton/metrics/metrics.h"
#include "triton/metrics/statistics_reporter.h"
#include "triton/metrics/step_history.h"
#include "triton/model/model_state.h"
#include "triton/preload/late_ends.h"
#include "triton/request/fetched_requests.h"
#include "triton/request/pending_request.h"
#include "triton/request/request_reader.h"

namespace inflight::triton {

// One loaded engine with its batch manager.
class InstanceState {
 public:
  InstanceState(const ModelState& model, TRITONBACKEND_ModelInstance* instance);

  // Takes the requests and returns at once: each is read, submitted and released. Every one gets its end later, from
  // the batch manager's delivery thread, or here if it is refused.
  void execute(std::span<TRITONBACKEND_Request* const> requests) noexcept;

 private:
  enum class Outcome { kStarted, kFetched, kRefused };

  Outcome start(TRITONBACKEND_Request* request) noexcept;
  BatchManager make_batch_manager(TRITONSERVER_Server* server);
  ResponseFormat response_format(const InferenceRequest& request) const;
  Outcome submit(InferenceRequest request, ResponseFactoryHandle& factory);
  void fetch(uint64_t generation_id, const std::vector<std::string>& outputs, TRITONBACKEND_ResponseFactory* factory);

  const BackendConfig& config_;
  TRITONBACKEND_ModelInstance* const instance_;
  RunningRequests running_;
  LateEnds late_ends_;
  FetchedRequests fetched_;
  StepHistory steps_;
  Metrics metrics_;
  BatchManager batch_manager_;   // the requests that it ends when it is destroyed use the above
  StatisticsReporter reporter_;  // last: it reads the above
};

}  // namespace inflight::triton
