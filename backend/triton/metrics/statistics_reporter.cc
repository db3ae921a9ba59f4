#include "triton/metrics/statistics_reporter.h"

#include <utility>

#include "triton/errors.h"
#include "triton/metrics/iteration_log.h"

namespace inflight::triton {

StatisticsReporter::StatisticsReporter(std::string model, const BatchManager& batch_manager,
                                       IterationHistory& iterations, Metrics& metrics, std::chrono::milliseconds period)
    : model_(std::move(model)),
      batch_manager_(batch_manager),
      iterations_(iterations),
      metrics_(metrics),
      period_(period),
      thread_([this] { run(); }) {}

StatisticsReporter::~StatisticsReporter() {
  {
    std::lock_guard lock(mutex_);
    is_closing_ = true;
  }
  closed_.notify_one();
  thread_.join();
}

void StatisticsReporter::run() {
  std::unique_lock lock(mutex_);
  do {
    report();
  } while (!closed_.wait_for(lock, period_, [this] { return is_closing_; }));
}

void StatisticsReporter::report() {
  const Statistics statistics = batch_manager_.statistics();
  iterations_.take(taken_);
  if (!taken_.empty()) {
    last_ = taken_.back();
  } else if (statistics.active_requests == 0) {
    last_.statistics = {};  // nothing runs: the last step says nothing about now
  }
  metrics_.report(statistics, last_.statistics, last_.time);
  if (!TRITONSERVER_LogIsEnabled(TRITONSERVER_LOG_VERBOSE)) return;
  for (const Iteration& iteration : taken_) {
    const std::string line = iteration_line(model_, iteration, statistics);
    log_if_error(TRITONSERVER_LogMessage(TRITONSERVER_LOG_VERBOSE, "inflight", 0, line.c_str()));
  }
}

}  // namespace inflight::triton
