#include "triton/shutdown.h"

#include <errno.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "common/logging.h"
#include "triton/errors.h"

namespace inflight::triton {
namespace {

// Of the last responses, through Triton's front ends.
constexpr std::chrono::seconds kTimeToLeave{2};

std::atomic<bool> shutting_down = false;

void wait_for_order(int pipe) {
  char order;
  ssize_t size;
  do {
    size = read(pipe, &order, 1);
  } while (size < 0 && errno == EINTR);
  if (size > 0) shutting_down = true;  // else the launcher is gone, and its guardian ends this process
}

}  // namespace

void watch_for_shutdown() {
  static const bool watches = [] {
    const char* const pipe = std::getenv("INFLIGHT_END_REQUESTS_FD");
    if (pipe != nullptr) std::thread(wait_for_order, std::atoi(pipe)).detach();
    return pipe != nullptr;
  }();
  static_cast<void>(watches);
}

bool is_shutting_down() noexcept { return shutting_down; }

Error shutdown_error() {
  return Error(ErrorCode::kUnavailable, "the server is shutting down; send the request to another, or again later");
}

void end_without_engine(TRITONSERVER_Server* server, const Error& reason) {
  log_error("this server ends with status ", kEngineLostStatus, ", as its engine is lost: ", reason.what());
  // It waits for requests and models, perhaps for ever.
  std::thread([server] { log_if_error(TRITONSERVER_ServerStop(server)); }).detach();
  std::thread([] {
    std::this_thread::sleep_for(kTimeToLeave);
    _exit(kEngineLostStatus);
  }).detach();
}

}  // namespace inflight::triton
