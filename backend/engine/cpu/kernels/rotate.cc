#include "engine/cpu/kernels/isa_operations.h"
#include "engine/cpu/kernels/vector.h"

namespace inflight::cpu::INFLIGHT_ISA {

void rotate(float* x, int64_t num_heads, const float* cos, const float* sin, int64_t half) {
  for (int64_t head = 0; head < num_heads; ++head) {
    float* first = x + head * 2 * half;
    float* second = first + half;
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const Vector a = load(first + i), b = load(second + i), c = load(cos + i), s = load(sin + i);
      store(first + i, a * c - b * s);
      store(second + i, b * c + a * s);
    }
    for (; i < half; ++i) {
      const float a = first[i], b = second[i];
      first[i] = a * cos[i] - b * sin[i];
      second[i] = b * cos[i] + a * sin[i];
    }
  }
}

}  // namespace inflight::cpu::INFLIGHT_ISA
