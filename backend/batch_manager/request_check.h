#pragma once

#include "batch_manager/request.h"
#include "engine/engine.h"

namespace inflight {

// Throws Error (kInvalidArgument) that names the field, what it is and what it may be, for a request that
// this engine cannot serve.
void check_request(const Request& request, const EngineInfo& info, bool enable_chunked_context);

}  // namespace inflight
