#include "engine/cpu/kv_cache_size.h"

#include "common/error.h"
#include "common/memory_limit.h"

namespace inflight::cpu {
namespace {

int64_t count_blocks(const std::filesystem::path& directory, const BuildConfig& build, const EngineOptions& options,
                     int64_t bytes_per_block) {
  if (options.max_tokens_in_kv_cache) {
    const int64_t blocks = *options.max_tokens_in_kv_cache / build.tokens_per_block;
    if (blocks < 1) {
      throw_error(ErrorCode::kInvalidArgument, "max_tokens_in_paged_kv_cache is ", *options.max_tokens_in_kv_cache,
                  "; it must hold at least one block of ", build.tokens_per_block, " tokens");
    }
    return blocks;
  }
  const int64_t blocks = build.kv_cache_bytes / bytes_per_block;
  if (blocks < 1) {
    throw_error(ErrorCode::kInvalidArgument, (directory / "config.json").string(), ": build_config.kv_cache_bytes is ",
                build.kv_cache_bytes, ", but one block of ", build.tokens_per_block, " tokens takes ", bytes_per_block,
                " bytes; rebuild with a larger --kv-cache-memory");
  }
  return blocks;
}

int64_t count_host_blocks(const EngineOptions& options, int64_t bytes_per_block) {
  const int64_t bytes = options.kv_cache_host_bytes;
  if (bytes < 0 || (bytes > 0 && bytes < bytes_per_block)) {
    throw_error(ErrorCode::kInvalidArgument, "kv_cache_host_memory_bytes is ", bytes,
                "; it must be 0, for no host tier, or hold at least one block of ", bytes_per_block, " bytes");
  }
  return bytes / bytes_per_block;
}

}  // namespace

KvCacheSize kv_cache_size(const std::filesystem::path& directory, const BuildConfig& build,
                          const EngineOptions& options, int64_t bytes_per_block) {
  const int64_t blocks = count_blocks(directory, build, options, bytes_per_block);
  const int64_t host_blocks = count_host_blocks(options, bytes_per_block);
  // Memory that is reserved untouched never fails for want of it, only later: refuse here.
  const int64_t available_bytes = memory_limit();
  const auto fits = [&](int64_t count) { return count <= available_bytes / bytes_per_block && count <= INT32_MAX; };
  if (!fits(blocks)) {
    throw_error(
        ErrorCode::kUnavailable, directory.string(), ": a KV cache of ", blocks, " blocks of ", bytes_per_block,
        " bytes does not fit into the ", available_bytes, " bytes of memory that this machine or its control ",
        "groups allow; set a smaller max_tokens_in_paged_kv_cache, or rebuild with a smaller --kv-cache-memory");
  }
  if (!fits(host_blocks) || !fits(blocks + host_blocks)) {
    throw_error(ErrorCode::kUnavailable, directory.string(), ": a host tier of kv_cache_host_memory_bytes ",
                options.kv_cache_host_bytes, " beside a KV cache of ", blocks * bytes_per_block,
                " bytes does not fit into the ", available_bytes, " bytes of memory that this machine or its control ",
                "groups allow; set a smaller kv_cache_host_memory_bytes");
  }
  return {static_cast<int32_t>(blocks), static_cast<int32_t>(host_blocks)};
}

}  // namespace inflight::cpu
