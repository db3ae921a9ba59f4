#pragma once

// The product of few rows: as fast as memory gives the weights. Needs compute capability 9.0.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "engine/tensorrt/gemm/gemm_shape.h"
#include "kernel_launch.h"

namespace inflight::gpu {

inline constexpr int32_t kMaxSkinnyRows = 8;

// The weights are read before the kernel before this one ends (programmatic_launch), everything else after.
struct SkinnyGemm {
  GemmType type;  // kBFloat16 or kFloat16, of every tensor
  GemmEpilogue epilogue;
  void* output;          // [rows, columns]; kSwiGlu: [rows, columns / 2]
  const void* input;     // [rows, depth]
  const void* weight;    // [columns, depth]
  const void* residual;  // [rows, columns] with kAddResidual, and may be output; else null
  void* counters;        // skinny_counter_bytes(), zeroed before the first launch. Launches leave it zeroed.
  void* partials;        // skinny_partial_bytes(); null where that is 0
  int32_t rows;
  int32_t columns;
  int32_t depth;
  bool programmatic_launch = false;
};

// Whether a product can be computed so: up to kMaxSkinnyRows rows, columns and depth that its tiles divide.
bool fits_skinny_gemm(int32_t rows, int32_t columns, int32_t depth);

// Launches that share these may not overlap, as launches of one stream do not.
size_t skinny_counter_bytes(int32_t columns);
size_t skinny_partial_bytes(int32_t columns, int32_t depth);

// Loads what a stream under capture cannot.
kernels::Status load_skinny_gemm(GemmType type, GemmEpilogue epilogue);

kernels::Status launch(const SkinnyGemm& arguments, cudaStream_t stream);

}  // namespace inflight::gpu
