#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"
#include "engine/model_config.h"

namespace inflight {

// What each layer's tokens see: the last `layers[i]` tokens up to their own (0: all), and the first `sink_tokens`.
struct AttentionWindows {
  std::vector<int32_t> layers;  // [num_hidden_layers]
  int32_t largest;              // of all layers; 0: some layer sees everything
  int32_t sink_tokens;
};

// The model's own windows, narrowed by the options. Throws kInvalidArgument naming the option.
AttentionWindows attention_windows(const EngineConfig& config, const EngineOptions& options);

}  // namespace inflight
