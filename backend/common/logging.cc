#include "common/logging.h"

#include <cstdio>
#include <mutex>
#include <utility>

namespace inflight {
namespace {

std::mutex sink_mutex;
LogSink current_sink = [](LogLevel level, const std::string& message) {
  if (level != LogLevel::kVerbose) std::fprintf(stderr, "[inflight] %s\n", message.c_str());
};

}  // namespace

void set_log_sink(LogSink sink) {
  std::lock_guard lock(sink_mutex);
  current_sink = std::move(sink);
}

void log_message(LogLevel level, const std::string& message) {
  std::lock_guard lock(sink_mutex);
  current_sink(level, message);
}

}  // namespace inflight
