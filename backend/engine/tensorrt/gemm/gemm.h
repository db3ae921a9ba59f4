#pragma once

// A linear layer's product, computed in the way that was measured to be the fastest for its rows.

#include <functional>
#include <span>

#include "engine/tensorrt/gemm/cublaslt.h"
#include "engine/tensorrt/gemm/gemm_shape.h"
#include "kernel_launch.h"

namespace inflight::gpu {

struct GemmArguments {
  void* output;               // [rows, output_columns]
  const void* input;          // [rows, depth]
  const void* weight;         // [columns, depth]
  const void* residual;       // [rows, columns] with kAddResidual, may be output; else null
  const float* input_scale;   // on the device, of kFloat8E4M3; else null
  const float* weight_scale;  // likewise
  void* workspace;            // workspace_bytes(shape, rows or more)
  void* counters;             // counter_bytes(shape), zeroed once; one stream's launches may share it
  int32_t rows;
};

size_t workspace_bytes(const GemmShape& shape, int32_t max_rows);
size_t counter_bytes(const GemmShape& shape);

// Loads what a stream under capture cannot.
kernels::Status load_gemm(const GemmShape& shape);

// `tactic` null: what cuBLASLt takes. Allocates nothing and waits for nothing.
kernels::Status enqueue(const GemmShape& shape, const GemmTactic* tactic, const GemmArguments& arguments,
                        cudaStream_t stream);

// Measures every way for each of `rows`, in graphs that rotate over `weights` ([columns, depth] each), which together
// should exceed the second-level cache. `arguments` give the other tensors, of the most rows. A card at work for a
// while gives other winners than a rested one: keep it busy before. `before(rows)`, if any, launches what stands before
// the product in a model, such as a norm: some ways begin to read weights while it runs. `all` gets every way that ran.
kernels::Status measure(const GemmShape& shape, std::span<const int32_t> rows, std::span<const void* const> weights,
                        GemmArguments arguments, const std::function<kernels::Status(int32_t)>& before,
                        cudaStream_t stream, GemmTactics& tactics, std::vector<GemmTactic>* all = nullptr);

// Microseconds of one of `calls` calls of body(i), the median of three replays of one graph of all.
kernels::Status measure_graph(int32_t calls, const std::function<kernels::Status(int32_t)>& body, cudaStream_t stream,
                              float& microseconds);

}  // namespace inflight::gpu
