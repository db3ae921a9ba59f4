#include "batch_manager/guided/xgrammar_logging.h"

#include <support/logging.h>  // of xgrammar's sources

// The functions that XGRAMMAR_LOG_CUSTOMIZE asks for. Nothing of xgrammar writes to stderr.

namespace inflight {
namespace {

thread_local std::vector<std::string>* collected = nullptr;

}  // namespace

XgrammarWarnings::XgrammarWarnings() { collected = &messages_; }
XgrammarWarnings::~XgrammarWarnings() { collected = nullptr; }

}  // namespace inflight

namespace xgrammar {
namespace {

// Without time, file and line of the library's source.
class PlainError : public LogFatalError {
 public:
  using LogFatalError::LogFatalError;
  const char* what() const noexcept override { return std::runtime_error::what(); }
};

}  // namespace

void LogFatalImpl(const std::string& file, int line, const std::string& message) {
  throw PlainError(file, line, message);
}

void LogMessageImpl(const std::string&, int, int level, const std::string& message) {
  if (level == XGRAMMAR_LOG_LEVEL_WARNING && inflight::collected) inflight::collected->push_back(message);
}

}  // namespace xgrammar
