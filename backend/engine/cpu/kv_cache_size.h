#pragma once

#include <cstdint>
#include <filesystem>

#include "engine/engine.h"
#include "engine/model_config.h"

namespace inflight::cpu {

struct KvCacheSize {
  int32_t num_blocks;       // that steps can use
  int32_t num_host_blocks;  // behind them, that only copies reach
};

// How many blocks of `bytes_per_block` the engine's build and the server's options ask for. Throws, naming the option
// to change: kInvalidArgument when not even one block is asked for, kUnavailable when the machine does not hold them.
KvCacheSize kv_cache_size(const std::filesystem::path& directory, const BuildConfig& build,
                          const EngineOptions& options, int64_t bytes_per_block);

}  // namespace inflight::cpu
