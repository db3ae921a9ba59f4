#pragma once

#include <functional>
#include <string>

#include "common/error.h"

namespace inflight {

enum class LogLevel { kVerbose, kInfo, kWarning, kError };

using LogSink = std::function<void(LogLevel, const std::string&)>;

// Where messages go: stderr until set. The Triton backend routes them to Triton's log.
void set_log_sink(LogSink sink);
void log_message(LogLevel level, const std::string& message);

template <class... Args>
void log_info(const Args&... args) {
  log_message(LogLevel::kInfo, concat(args...));
}
template <class... Args>
void log_warning(const Args&... args) {
  log_message(LogLevel::kWarning, concat(args...));
}
template <class... Args>
void log_error(const Args&... args) {
  log_message(LogLevel::kError, concat(args...));
}

}  // namespace inflight
