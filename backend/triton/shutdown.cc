#include "triton/shutdown.h"

#include <errno.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

namespace inflight::triton {
namespace {

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

}  // namespace inflight::triton
