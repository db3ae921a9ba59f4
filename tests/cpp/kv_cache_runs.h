#pragma once

#include <cstdint>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "batch_manager/kv_cache.h"
#include "check.h"

namespace inflight::test {

// tokens_per_block is 4 in all of the KV cache's tests.
inline KvCacheOptions reusing(int32_t num_blocks, int32_t num_host_blocks = 0) {
  return {.num_blocks = num_blocks, .num_host_blocks = num_host_blocks, .tokens_per_block = 4, .enable_reuse = true};
}

inline KvCacheOptions windowed(int32_t num_blocks, int32_t attention_window, int32_t sink_tokens = 0) {
  KvCacheOptions options = reusing(num_blocks);
  options.attention_window = attention_window;
  options.sink_tokens = sink_tokens;
  return options;
}

inline std::vector<int32_t> numbers(int32_t begin, int32_t count) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), begin);
  return tokens;
}

inline std::vector<int32_t> concat_tokens(std::vector<int32_t> first, const std::vector<int32_t>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// A sequence whose tokens are computed as soon as it is admitted.
struct Run {
  std::vector<int32_t> tokens;
  std::vector<uint64_t> extra_ids = {};
  uint64_t lora_task_id = 0;
  BlockList list = {};

  PrefixKey key() const { return {tokens, lora_task_id, extra_ids}; }

  std::optional<Admission> try_start(KvCache& cache, int32_t num_blocks = 0) {
    const auto admission = cache.admit(list, key(), num_blocks, true);
    if (admission) {
      CHECK(cache.extend(list, tokens.size()));
      cache.commit(list, key());
    }
    return admission;
  }
  Admission start(KvCache& cache) {
    const auto admission = try_start(cache);
    CHECK(admission.has_value());
    return *admission;
  }
  void append(KvCache& cache, const std::vector<int32_t>& more) {
    for (int32_t token : more) {
      tokens.push_back(token);
      CHECK(cache.extend(list, tokens.size()));
      cache.commit(list, key());
    }
  }
  void end(KvCache& cache, const KvCacheRetention& retention = {}, int32_t prompt_length = -1) {
    cache.release(list, key(), prompt_length < 0 ? static_cast<int32_t>(tokens.size()) : prompt_length, retention);
  }
};

inline KvCacheRetention retain(std::vector<RetentionRange> ranges) {
  KvCacheRetention retention;
  retention.ranges = std::move(ranges);
  return retention;
}

inline void run_to_end(KvCache& cache, const std::vector<int32_t>& tokens, const KvCacheRetention& retention = {}) {
  Run run{tokens};
  run.start(cache);
  run.end(cache, retention);
}

// How many tokens a sequence with this prefix and one more token would find.
inline int32_t num_cached(KvCache& cache, const std::vector<int32_t>& prefix) {
  Run probe{concat_tokens(prefix, {-7})};
  const auto admission = cache.admit(probe.list, probe.key(), 0, true);
  cache.release(probe.list);
  cache.take_copies();
  return admission ? admission->num_cached : -1;
}

inline void check_copies(KvCache& cache, const std::vector<std::pair<int32_t, int32_t>>& expected) {
  const auto copies = cache.take_copies();
  CHECK_EQ(copies.size(), expected.size());
  for (size_t i = 0; i < copies.size(); ++i) {
    CHECK_EQ(copies[i].source, expected[i].first);
    CHECK_EQ(copies[i].destination, expected[i].second);
  }
}

}  // namespace inflight::test
