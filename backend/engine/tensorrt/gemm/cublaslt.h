#pragma once

// Products by cuBLASLt, whose library is loaded when the first one is asked for: machines without it run all else.

#include <cublasLt.h>

#include <vector>

#include "engine/tensorrt/gemm/gemm_shape.h"
#include "kernel_launch.h"

namespace inflight::gpu {

// Of a product's C = A Bᵀ + residual, whose epilogue kSwiGlu is left to the caller.
struct CublasLtProduct {
  void* output;           // [rows, columns]
  const void* input;      // [rows, depth]
  const void* weight;     // [columns, depth]
  const void* residual;   // [rows, columns], or null
  const float* input_scale;   // on the device, of kFloat8E4M3; else null
  const float* weight_scale;  // likewise
  int32_t rows;
};

class CublasLt {
 public:
  // Room that algorithms may ask for.
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  // The process's own, made by the first call. An error names the library that is missing.
  static kernels::Status get(const CublasLt** cublaslt);

  uint64_t version() const { return version_; }

  // Algorithms for products of this many rows, the one first that cuBLASLt would take.
  kernels::Status candidates(const GemmShape& shape, int32_t rows, int32_t count,
                             std::vector<std::array<uint64_t, 8>>& algorithms) const;

  // Uses `algorithm` where it fits as many rows, else what cuBLASLt takes. Allocates nothing.
  kernels::Status multiply(const GemmShape& shape, const CublasLtProduct& product,
                           const std::array<uint64_t, 8>* algorithm, void* workspace, cudaStream_t stream) const;

 private:
  CublasLt() = default;

  struct Library;
  struct Problem;
  kernels::Status load();

  const Library* library_ = nullptr;
  cublasLtHandle_t handle_ = nullptr;
  uint64_t version_ = 0;
};

}  // namespace inflight::gpu
