#pragma once

namespace inflight::cpu {

// Instruction sets that kernels are written for, from the slowest.
enum class Isa {
  kPortable,    // what the compiler assumes by default
  kAvx2,        // AVX2, FMA, F16C
  kAvx512,      // AVX-512 F, BW, DQ, VL, VNNI
  kAvx512Bf16,  // and BF16
  kAmx,         // and AMX TILE, BF16
};

inline constexpr Isa kIsas[] = {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx};

const char* isa_name(Isa isa);  // "portable", "avx2", "avx512", "avx512_bf16", "amx"

// Do this machine and its operating system have it? The latter is asked once for leave to use AMX.
bool supports(Isa isa);

// The best that this machine has, or the one that the environment variable INFLIGHT_CPU_ISA names.
// Throws kInvalidArgument for an unknown name or one that this machine lacks.
Isa select_isa();

}  // namespace inflight::cpu
