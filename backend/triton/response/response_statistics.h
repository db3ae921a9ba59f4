#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

#include "triton/handles.h"

namespace inflight::triton {

uint64_t steady_now_ns();

// One request's part in `response_stats` of Triton's /v2/models/MODEL/stats, which counts and times what it is told of
// under "0", "1" …: here, the first response, from the request's arrival, and the last one, from the first. (There
// would be an entry for each response of the longest stream.) Making a response into tensors and handing it to Triton
// is its output time. May be called from any thread.
class ResponseStatistics {
 public:
  // Both must outlive it.
  ResponseStatistics(TRITONBACKEND_ModelInstance* instance, TRITONBACKEND_ResponseFactory* factory);

  // A response has just been handed over; it was begun at `output_begin`.
  void add_success(uint64_t output_begin, bool is_last) noexcept;
  // The request has ended instead.
  void add_failure(const std::exception& error) noexcept;
  void add_cancellation() noexcept;

 private:
  struct Deleter {
    void operator()(TRITONBACKEND_ModelInstanceResponseStatistics* statistics) const {
      TRITONBACKEND_ModelInstanceResponseStatisticsDelete(statistics);
    }
  };

  void report(uint64_t output_begin, TRITONSERVER_Error* error) noexcept;

  std::mutex mutex_;
  std::unique_ptr<TRITONBACKEND_ModelInstanceResponseStatistics, Deleter> statistics_;
  uint64_t begin_ = steady_now_ns();  // of what is reported next
  bool is_first_ = true;
};

}  // namespace inflight::triton
