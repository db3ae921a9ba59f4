#pragma once

#include "common/error.h"

namespace inflight::triton {

// Triton tells nobody that it is about to exit: it takes no new connections, waits for those that it has, and in the
// end cuts them off. So the launcher tells the backend by the pipe INFLIGHT_END_REQUESTS_FD: every request ends with an
// error then, which its client sees. A tritonserver without the launcher has no such pipe.

// Watches the pipe for as long as the process lives; further calls do nothing.
void watch_for_shutdown();

// The launcher wants all requests to end, those that are still to come as well.
bool is_shutting_down() noexcept;

// What such a request is answered.
Error shutdown_error();

}  // namespace inflight::triton
