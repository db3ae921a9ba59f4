#include "engine/cpu/kernels/isa_operations.h"
#include "engine/cpu/kernels/vector.h"

namespace inflight::cpu::INFLIGHT_ISA {

void silu_and_multiply(const float* gate_up, int64_t size, float* y) {
  const float* gate = gate_up;
  const float* up = gate_up + size;
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const Vector x = load(gate + i);
    store(y + i, x / (exp(-x) + 1.0f) * load(up + i));
  }
  for (; i < size; ++i) y[i] = gate[i] / (exp(broadcast(-gate[i]))[0] + 1.0f) * up[i];
}

}  // namespace inflight::cpu::INFLIGHT_ISA
