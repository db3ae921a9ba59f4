#include "engine/cpu/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <ranges>
#include <string_view>

#include "common/error.h"

namespace inflight::cpu {
namespace {

#if defined(__x86_64__)
bool has_amx() {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  constexpr unsigned kBFloat16 = 1u << 22, kTile = 1u << 24;
  if (~edx & (kBFloat16 | kTile)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM of Linux's asm/prctl.h
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAmx: return "amx";
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx2: return "avx2";
    case Isa::kPortable: break;
  }
  return "portable";
}

bool supports(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  switch (isa) {
    case Isa::kAmx: {
      static const bool amx = has_amx();
      return amx && supports(Isa::kAvx512Bf16);
    }
    case Isa::kAvx512Bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
    case Isa::kAvx512: return avx512;
    case Isa::kAvx2: return avx2;
    case Isa::kPortable: break;
  }
#endif
  return isa == Isa::kPortable;
}

Isa select_isa() {
  const char* requested = std::getenv("INFLIGHT_CPU_ISA");
  const bool forced = requested != nullptr && *requested != '\0';
  for (const Isa isa : std::views::reverse(kIsas)) {
    if (!forced && supports(isa)) return isa;
    if (!forced || std::string_view(requested) != isa_name(isa)) continue;
    if (supports(isa)) return isa;
    throw_error(ErrorCode::kInvalidArgument, "INFLIGHT_CPU_ISA is ", requested,
                ", but this machine lacks some of its instructions; unset it, or set it to a lower one");
  }
  throw_error(ErrorCode::kInvalidArgument, "INFLIGHT_CPU_ISA is \"", requested,
              "\"; it must be amx, avx512_bf16, avx512, avx2, portable or unset");
}

}  // namespace inflight::cpu
