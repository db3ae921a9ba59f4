#include "triton/response/response_statistics.h"

#include <algorithm>
#include <chrono>

#include "common/error.h"
#include "triton/errors.h"

namespace inflight::triton {

uint64_t steady_now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

ResponseStatistics::ResponseStatistics(TRITONBACKEND_ModelInstance* instance, TRITONBACKEND_ResponseFactory* factory) {
  TRITONBACKEND_ModelInstanceResponseStatistics* handle;
  check(TRITONBACKEND_ModelInstanceResponseStatisticsNew(&handle));
  statistics_.reset(handle);
  check(TRITONBACKEND_ModelInstanceResponseStatisticsSetModelInstance(handle, instance));
  check(TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseFactory(handle, factory));
}

void ResponseStatistics::add_success(uint64_t output_begin, bool is_last) noexcept {
  std::lock_guard lock(mutex_);
  if (is_first_ || is_last) report(output_begin, nullptr);
}

void ResponseStatistics::add_failure(const std::exception& error) noexcept {
  std::lock_guard lock(mutex_);
  report(steady_now_ns(), to_triton_error(error).get());
}

void ResponseStatistics::add_cancellation() noexcept {
  add_failure(Error(ErrorCode::kCancelled, "the request was cancelled"));
}

void ResponseStatistics::report(uint64_t output_begin, TRITONSERVER_Error* error) noexcept {
  auto* statistics = statistics_.get();
  const uint64_t end = steady_now_ns();
  log_if_error(TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseStart(statistics, begin_));
  log_if_error(
      TRITONBACKEND_ModelInstanceResponseStatisticsSetComputeOutputStart(statistics, std::max(begin_, output_begin)));
  log_if_error(TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseEnd(statistics, end));
  log_if_error(TRITONBACKEND_ModelInstanceResponseStatisticsSetError(statistics, error));
  log_if_error(TRITONBACKEND_ModelInstanceReportResponseStatistics(statistics));
  begin_ = end;
  is_first_ = false;
}

}  // namespace inflight::triton
