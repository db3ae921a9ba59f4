#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "triton/fetched_requests.h"
#include "triton/handles.h"
#include "triton/iteration_history.h"
#include "triton/late_ends.h"
#include "triton/metrics.h"
#include "triton/model_state.h"
#include "triton/pending_request.h"
#include "triton/request_reader.h"
#include "triton/statistics_reporter.h"

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
  BatchManager make_batch_manager();
  ResponseFormat response_format(const InferenceRequest& request) const;
  Outcome submit(InferenceRequest request, ResponseFactoryHandle& factory);
  void fetch(uint64_t generation_id, const std::vector<std::string>& outputs, TRITONBACKEND_ResponseFactory* factory);

  const ModelConfig& config_;
  TRITONBACKEND_ModelInstance* const instance_;
  RunningRequests running_;
  LateEnds late_ends_;
  FetchedRequests fetched_;
  IterationHistory iterations_;
  Metrics metrics_;
  BatchManager batch_manager_;   // the requests that it ends when it is destroyed use the above
  StatisticsReporter reporter_;  // last: it reads the above
};

}  // namespace inflight::triton
