#include "triton/metrics/statistics_reporter.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <utility>

#include "triton/errors.h"
#include "triton/metrics/step_log.h"

namespace inflight::triton {
namespace {

// Of this process, in bytes; 0 if the kernel does not say.
int64_t resident_memory() {
  static const long page_size = sysconf(_SC_PAGESIZE);
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * page_size;
}

// Nothing runs: the last step says nothing about now.
StepStatistics idle_statistics(const Statistics& statistics) {
  return {.step = statistics.steps,
          .free_blocks = statistics.kv_cache.free_blocks,
          .used_blocks = statistics.kv_cache.used_blocks};
}

}  // namespace

StatisticsReporter::StatisticsReporter(std::string model, bool is_static_batch, const BatchManager& batch_manager,
                                       StepHistory& steps, Metrics& metrics, std::chrono::milliseconds period)
    : model_(std::move(model)),
      is_static_batch_(is_static_batch),
      batch_manager_(batch_manager),
      steps_(steps),
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
  const int64_t memory = resident_memory();
  steps_.take(taken_);
  const bool was_idle = std::exchange(is_idle_, taken_.empty() && statistics.running_sequences == 0);
  if (!taken_.empty()) last_ = taken_.back();
  if (is_idle_) last_.statistics = idle_statistics(statistics);
  if (is_idle_ && !was_idle) taken_.push_back(last_);
  metrics_.report(statistics, last_.statistics, last_.time, memory);
  if (!TRITONSERVER_LogIsEnabled(TRITONSERVER_LOG_VERBOSE)) return;
  for (const EndedStep& step : taken_) {
    // Not through Triton's log, which would make it a JSON string.
    const std::string line = step_line(model_, step, statistics, is_static_batch_, memory) + "\n";
    std::fwrite(line.data(), 1, line.size(), stderr);
  }
}

}  // namespace inflight::triton
