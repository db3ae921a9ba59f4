#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace inflight {

// What kind of failure it is; the Triton backend maps these to TRITONSERVER_Error_Code.
enum class ErrorCode {
  kInvalidArgument,  // the caller can fix it: the message says what to change
  kNotFound,         // a file or a name that does not exist
  kUnavailable,      // try again later: a full queue, a server that is stopping
  kUnsupported,      // a documented feature that this version does not have
  kCancelled,
  kInternal,
  kEngineLost,  // the engine, and with it the server, can do nothing any more: a device's fault, a rank that died
};

// The one exception type of this project. Messages say what was wrong, where, and what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

// "a", 1, 2.5 → "a12.5". Stands in for std::format, which g++ 12 lacks.
template <class... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// throw_error(ErrorCode::kInvalidArgument, "top_p is ", p, "; it must be in [0, 1]");
template <class... Args>
[[noreturn]] void throw_error(ErrorCode code, const Args&... args) {
  throw Error(code, concat(args...));
}

}  // namespace inflight
