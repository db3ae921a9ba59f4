#include "engine/attention_windows.h"

#include <algorithm>

#include "common/error.h"

namespace inflight {
namespace {

// The narrower of two windows, of which 0 is the widest.
int32_t narrower(int32_t a, int32_t b) { return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b); }

void check_windows(const EngineConfig& config, const std::vector<int32_t>& windows) {
  const auto fail = [](const auto&... message) {
    throw_error(ErrorCode::kInvalidArgument, "max_attention_window_size ", message...);
  };
  if (windows.size() > config.model.layer_windows.size()) {
    fail("has ", windows.size(), " values; the model has ", config.model.layer_windows.size(), " layers");
  }
  for (const int32_t window : windows) {
    if (window != 0 && window < config.build.tokens_per_block) {
      fail("is ", window, "; it must be 0, for all tokens, or at least the engine's tokens_per_block, ",
           config.build.tokens_per_block);
    }
  }
}

void check_sinks(const std::vector<int32_t>& windows, int32_t sink_tokens) {
  if (sink_tokens < 0) {
    throw_error(ErrorCode::kInvalidArgument, "sink_token_length is ", sink_tokens, "; it must be at least 0");
  }
  for (const int32_t window : windows) {
    if (window > 0 && sink_tokens >= window) {
      throw_error(ErrorCode::kInvalidArgument, "sink_token_length is ", sink_tokens,
                  "; it must be less than every layer's attention window, of which one is ", window);
    }
  }
}

}  // namespace

AttentionWindows attention_windows(const EngineConfig& config, const EngineOptions& options) {
  check_windows(config, options.max_attention_windows);
  AttentionWindows windows{config.model.layer_windows, 0, options.sink_tokens};
  for (size_t i = 0; i < windows.layers.size(); ++i) {
    int32_t& window = windows.layers[i];
    if (!options.max_attention_windows.empty()) {
      window = narrower(window, options.max_attention_windows[i % options.max_attention_windows.size()]);
    }
    if (window >= config.build.max_seq_len) window = 0;
  }
  check_sinks(windows.layers, options.sink_tokens);
  const bool is_bounded = std::ranges::find(windows.layers, 0) == windows.layers.end();
  windows.largest = is_bounded ? std::ranges::max(windows.layers) : 0;
  return windows;
}

}  // namespace inflight
