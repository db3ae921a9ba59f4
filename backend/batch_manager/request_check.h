#pragma once

#include "batch_manager/batch_manager.h"
#include "batch_manager/kv_cache.h"
#include "batch_manager/request.h"
#include "engine/engine.h"

namespace inflight {

// Throws Error (kInvalidArgument) that names the field, what it is and what it may be, for a request that
// this engine cannot serve with these options. Of the cache only its sizes are read.
void check_request(const Request& request, const EngineInfo& info, const BatchManagerOptions& options,
                   const KvCache& kv_cache);

}  // namespace inflight
