#pragma once

#include "engine/cpu/kernels/operations.h"

// The functions behind Operations' pointers, compiled once for each instruction set.
namespace inflight::cpu::INFLIGHT_ISA {

void rms_norm(const float* x, const float* weight, float epsilon, int64_t size, float* y);
void rotate(float* x, int64_t num_heads, const float* cos, const float* sin, int64_t half);
void silu_and_multiply(const float* gate_up, int64_t size, float* y);
void to_bfloat16(const float* x, int64_t size, uint16_t* y);
void attention(const AttentionTask& task);

}  // namespace inflight::cpu::INFLIGHT_ISA
