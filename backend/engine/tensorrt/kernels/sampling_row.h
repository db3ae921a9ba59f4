#pragma once

#include <cstdint>

namespace inflight::gpu {

// How one row of logits is sampled from on the GPU. What SamplingConfig leaves out is left out here by the same values,
// except that all of them left out are a draw from everything, and not greedy. Free of CUDA.
struct SamplingRow {
  uint64_t seed;
  uint64_t num_generated;  // tokens of the sequence so far: with the seed, names the random number
  int32_t top_k;           // 0: all
  float top_p;             // 0 or 1: all
  float min_p;             // of the highest probability; 0: all
  float temperature;
  int32_t end_id;          // what is sampled where every logit is -inf or NaN
};

}  // namespace inflight::gpu
