#include "engine/cpu/kernels/isa_operations.h"

namespace inflight::cpu::INFLIGHT_ISA {

const Operations& table() {
  static constexpr Operations operations = {rms_norm, rotate, silu_and_multiply, to_bfloat16, attention};
  return operations;
}

}  // namespace inflight::cpu::INFLIGHT_ISA
