#include "engine/cpu/kernels/isa_operations.h"
#include "engine/cpu/kernels/vector.h"

namespace inflight::cpu::INFLIGHT_ISA {

void rms_norm(const float* x, const float* weight, float epsilon, int64_t size, float* y) {
  Vector squares = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) squares += load(x + i) * load(x + i);
  float mean_square = sum(squares);
  for (; i < size; ++i) mean_square += x[i] * x[i];
  mean_square /= static_cast<float>(size);

  const float scale = 1.0f / __builtin_sqrtf(mean_square + epsilon);
  for (i = 0; i + kLanes <= size; i += kLanes) store(y + i, load(x + i) * scale * load(weight + i));
  for (; i < size; ++i) y[i] = x[i] * scale * weight[i];
}

}  // namespace inflight::cpu::INFLIGHT_ISA
