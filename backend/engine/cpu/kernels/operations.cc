#include "engine/cpu/kernels/operations.h"

#include "engine/cpu/cpu_features.h"

namespace inflight::cpu {

// Defined by isa_operations.cc, compiled once for each.
namespace portable {
const Operations& table();
}
#if defined(__x86_64__)
namespace avx2 {
const Operations& table();
}
namespace avx512 {
const Operations& table();
}
namespace avx512_bf16 {
const Operations& table();
}
namespace amx {
const Operations& table();
}
#endif

const Operations& operations(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAmx: return amx::table();
    case Isa::kAvx512Bf16: return avx512_bf16::table();
    case Isa::kAvx512: return avx512::table();
    case Isa::kAvx2: return avx2::table();
#endif
    default: return portable::table();
  }
}

}  // namespace inflight::cpu
