#pragma once

#include <cstdint>

#include "common/thread_pool.h"
#include "engine/cpu/cpu_features.h"
#include "engine/cpu/kernels/linear_input.h"
#include "engine/cpu/packed_matrix.h"

namespace inflight::cpu {

// Where a linear layer's output goes, and what is done to it on the way.
struct LinearOutput {
  float* rows;                  // [tokens, weight.rows()]
  int64_t row_stride;           // floats
  const float* bias = nullptr;  // [weight.rows()]
  bool accumulate = false;      // rows += … instead of rows = …: a residual connection
};

// y = x · Wᵀ (+ bias). With kExact, float weights are multiplied in float32 with float32 inputs; integer weights in
// int8 with inputs quantized by segments of at most 32 columns, as llama.cpp's Q8_0 activations are.
// The input must have weight.columns() columns. Results do not depend on the number of threads, nor on the batch.
void linear(const PackedMatrix& weight, LinearInput& input, const LinearOutput& output, ThreadPool& pool, Isa isa,
            Precision precision = Precision::kExact);

// Whether linear_silu_and_multiply() can take these two.
bool has_linear_silu_and_multiply(const PackedLayout& gate_up, const PackedLayout& next, Precision precision, Isa isa);

// For Precision::kRounded: makes SiLU(gate) * up of [gate, up] = x · Wᵀ (+ bias) the input of the next layer, without
// writing it out as floats. The output must have half of gate_up.rows() columns; its rows are not looked at.
void linear_silu_and_multiply(const PackedMatrix& gate_up, const float* bias, LinearInput& input,
                              const PackedLayout& next, LinearInput& output, ThreadPool& pool, Isa isa);

}  // namespace inflight::cpu
