#include "engine/cpu/kernels/isa_operations.h"
#include "engine/cpu/kernels/vector.h"

namespace inflight::cpu::INFLIGHT_ISA {
namespace {

typedef uint16_t HalfVector __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// The upper halves, rounded to the nearest, ties to even; NaNs become quiet, so that they stay NaNs.
HalfVector rounded(Vector x) {
  const IntVector bits = __builtin_bit_cast(IntVector, x);
  const IntVector upper = bits + 0x7fff + ((bits >> 16) & 1);
  return __builtin_convertvector((x != x ? bits | 0x400000 : upper) >> 16, HalfVector);
}

}  // namespace

void to_bfloat16(const float* x, int64_t size, uint16_t* y) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const HalfVector halves = rounded(load(x + i));
    __builtin_memcpy(y + i, &halves, sizeof halves);
  }
  for (; i < size; ++i) {
    const Vector only = {x[i]};
    y[i] = rounded(only)[0];
  }
}

}  // namespace inflight::cpu::INFLIGHT_ISA
