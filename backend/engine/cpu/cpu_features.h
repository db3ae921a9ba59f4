#pragma once

namespace inflight::cpu {

// Instruction sets that kernels are written for, from the slowest.
enum class Isa {
  kPortable,    // what the compiler assumes by default
  kAvx2,        // AVX2, FMA, F16C
  kAvx512,      // AVX-512 F, BW, DQ, VL, VNNI
  kAvx512Bf16,  // and BF16
};

const char* isa_name(Isa isa);  // "portable", "avx2", "avx512", "avx512_bf16"

bool supports(Isa isa);  // does this machine have it?

// The best that this machine has, or the one that the environment variable INFLIGHT_CPU_ISA names.
// Throws kInvalidArgument for an unknown name or one that this machine lacks.
Isa select_isa();

}  // namespace inflight::cpu
