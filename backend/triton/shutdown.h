#pragma once

#include "common/error.h"
#include "triton/triton_api.h"

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

// With which this process ends when its engine is lost. The launcher starts it again, as often as it may.
inline constexpr int kEngineLostStatus = 70;

// The engine is lost, and every request has its last response: from here on the server is not ready, and it ends once
// these responses have had time to leave. Returns at once.
void end_without_engine(TRITONSERVER_Server* server, const Error& reason);

}  // namespace inflight::triton
