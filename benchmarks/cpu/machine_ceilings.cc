// What this machine can do at most: read bandwidth of memory, and GEMM rates in float32, bfloat16 and int8.
//
//   machine_ceilings [THREADS [--now]]
//
// Prints {"threads", "isa", "read_gb_per_s", "gemm_gop_per_s": {"float32", "bfloat16", "int8"}}: 1e9 bytes and 1e9
// operations (a multiplication and an addition are two) a second, of all threads together; null for a type without dot
// products here. Each figure is the best of its rounds, since other processes only ever take time away; with --now the
// median of a few, for what is measured beside it, where a virtual machine's neighbors come and go.
// Compile with -O3 -march=native.

#include <immintrin.h>
#if defined(__AMX_INT8__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <thread>
#include <vector>

namespace {

struct Rounds {
  int read, gemm;
  bool median;
};
constexpr Rounds kBest = {20, 200, false}, kNow = {3, 21, true};

constexpr size_t kReadBytes = size_t{1} << 30;  // far more than a last-level cache
constexpr int kDepth = 128;                     // 32-bit steps along a panel: 1 float, 2 bfloat16 or 4 int8 each
constexpr size_t kPanels = 16;                  // of the right-hand matrix, which a second-level cache holds
constexpr int kPasses = 400;                    // over all panels, in a round
constexpr int32_t kOnes = 0x3f803f80;           // 1.0 as float and as two bfloat16, about; small as four int8

// The left-hand value is one 32-bit step for all lanes, the right-hand one a vector of steps.
#if defined(__AVX512F__)
#if defined(__AMX_INT8__)
constexpr const char* kIsa = "amx";
#else
constexpr const char* kIsa = "avx512";
#endif
constexpr int kLanes = 16, kRows = 12;  // 12 x 2 accumulators of 32 registers
using Float = __m512;
using Int = __m512i;
inline Int load(const int32_t* p) { return _mm512_loadu_si512(p); }
inline Int broadcast(const int32_t* p) { return _mm512_set1_epi32(*p); }
inline Float as_float(Int x) { return _mm512_castsi512_ps(x); }
inline Float multiply_add(Int a, Int b, Float sum) { return _mm512_fmadd_ps(as_float(a), as_float(b), sum); }
#elif defined(__AVX2__) && defined(__FMA__)
constexpr const char* kIsa = "avx2";
constexpr int kLanes = 8, kRows = 6;
using Float = __m256;
using Int = __m256i;
inline Int load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const Int*>(p)); }
inline Int broadcast(const int32_t* p) { return _mm256_set1_epi32(*p); }
inline Float as_float(Int x) { return _mm256_castsi256_ps(x); }
inline Float multiply_add(Int a, Int b, Float sum) { return _mm256_fmadd_ps(as_float(a), as_float(b), sum); }
#else
#error "machine_ceilings needs AVX2 and FMA: compile with -march=native"
#endif

constexpr size_t kPanel = size_t{kDepth} * 2 * kLanes;

struct Float32 {
  static constexpr int kOperations = 2;  // of one step and lane
  using Sum = Float;
  static Sum add(Int a, Int b, Sum sum) { return multiply_add(a, b, sum); }
};

#if defined(__AVX512BF16__) && !defined(__AMX_INT8__)
#define HAS_BFLOAT16 1
struct BFloat16 {
  static constexpr int kOperations = 4;
  using Sum = Float;
  static Sum add(Int a, Int b, Sum sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};
#endif

struct Int8 {
  static constexpr int kOperations = 8;
  using Sum = Int;
  static Sum add(Int a, Int b, Sum sum) {
#if defined(__AVX512VNNI__)
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));  // g++ 12 spills the intrinsic's sums
    return sum;
#elif defined(__AVX512BW__)
    return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)));
#elif defined(__AVXVNNI__)
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
#endif
  }
};

// Runs `work` on all threads at once, `rounds` times; the shortest or median time of them together, in seconds.
double seconds_of(int threads, int rounds, bool median, const std::function<void(int)>& work) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds;
  seconds.reserve(rounds);
  Clock::time_point start;
  bool runs = false;
  std::barrier barrier(threads, [&]() noexcept {
    const auto now = Clock::now();
    if (runs) seconds.push_back(std::chrono::duration<double>(now - start).count());
    runs = !runs;
    start = now;
  });
  std::vector<std::thread> team;
  for (int thread = 0; thread < threads; ++thread) {
    team.emplace_back([&, thread] {
      for (int round = 0; round < rounds; ++round) {
        barrier.arrive_and_wait();
        work(thread);
        barrier.arrive_and_wait();
      }
    });
  }
  for (auto& thread : team) thread.join();
  std::sort(seconds.begin(), seconds.end());
  return seconds[median ? seconds.size() / 2 : 0];
}

double read_gb_per_s(int threads, const Rounds& rounds) {
  const std::vector<uint64_t> memory(kReadBytes / sizeof(uint64_t), 1);
  const size_t share = memory.size() / threads;
  std::vector<uint64_t> sums(threads);
  const double seconds = seconds_of(threads, rounds.read, rounds.median, [&](int thread) {
    const uint64_t* data = memory.data() + thread * share;
    uint64_t sum = 0;
    for (size_t i = 0; i < share; ++i) sum += data[i];
    sums[thread] += sum;
  });
  for (const uint64_t sum : sums) {
    if (sum != share * rounds.read) std::abort();  // and the compiler must not leave the reads out
  }
  return static_cast<double>(share * threads * sizeof(uint64_t)) / seconds * 1e-9;
}

// One tile of a matrix product, [kRows, kDepth] x [kDepth, 2 vectors]: the inner loop of any GEMM, without its packing.
template <typename Type>
void tile(const int32_t* left, const int32_t* right, typename Type::Sum (&total)[kRows][2]) {
  typename Type::Sum sums[kRows][2] = {};  // in registers: nothing else can point to them
  for (int step = 0; step < kDepth; ++step) {
    const Int first = load(right + step * 2 * kLanes), second = load(right + step * 2 * kLanes + kLanes);
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row) {
      const Int value = broadcast(left + step * kRows + row);
      sums[row][0] = Type::add(value, first, sums[row][0]);
      sums[row][1] = Type::add(value, second, sums[row][1]);
    }
  }
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row) {
    total[row][0] = sums[row][0];
    total[row][1] = sums[row][1];
  }
}

template <typename Type>
double gemm_gop_per_s(int threads, const Rounds& rounds) {
  constexpr double kOperations = double{Type::kOperations} * kRows * 2 * kLanes * kDepth * kPanels * kPasses;
  const double seconds = seconds_of(threads, rounds.gemm, rounds.median, [](int) {
    const std::vector<int32_t> left(kRows * kDepth, kOnes), right(kPanels * kPanel, kOnes);
    typename Type::Sum sums[kRows][2] = {};
    for (int pass = 0; pass < kPasses; ++pass) {
      for (size_t panel = 0; panel < kPanels; ++panel) {
        tile<Type>(left.data(), right.data() + panel * kPanel, sums);
      }
    }
    asm volatile("" : : "m"(sums));  // they are needed
  });
  return kOperations * threads / seconds * 1e-9;
}

#if defined(__AMX_INT8__)
constexpr int kTileBytes = 1024;  // 16 rows of 64 bytes
constexpr int kTileSteps = 16;    // of 64 bytes along two rows and two columns of tiles: 64 KB

// Two by two tiles of sums, as many as eight registers allow.
template <int kOperations, typename Multiply>
double tile_gemm_gop_per_s(int threads, const Rounds& rounds, Multiply multiply) {
  constexpr int kTileGemmPasses = 2000;
  const double seconds = seconds_of(threads, rounds.gemm, rounds.median, [&](int) {
    const struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } configuration;
    asm volatile("ldtilecfg %0" : : "m"(configuration));
    struct alignas(64) Line {
      int32_t steps[16];
    };
    const std::vector<Line> left(2 * kTileSteps * kTileBytes / 64), right(2 * kTileSteps * kTileBytes / 64);
    for (int pass = 0; pass < kTileGemmPasses; ++pass) {
      const auto* a = reinterpret_cast<const char*>(left.data());
      const auto* b = reinterpret_cast<const char*>(right.data());
      for (int step = 0; step < kTileSteps; ++step, a += 2 * kTileBytes, b += 2 * kTileBytes) {
        _tile_loadd(4, a, 64);
        _tile_loadd(5, a + kTileBytes, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + kTileBytes, 64);
        multiply();
      }
    }
    _tile_release();
  });
  constexpr double kWork = double{kOperations} * 4 * 16 * 16 * 16 * kTileSteps * kTileGemmPasses;
  return kWork * threads / seconds * 1e-9;
}

// The operating system grants the tiles' registers to who asks.
bool has_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

double bfloat16_gop_per_s(int threads, const Rounds& rounds) {
  return tile_gemm_gop_per_s<4>(threads, rounds, [] {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  });
}

double int8_gop_per_s(int threads, const Rounds& rounds) {
  return tile_gemm_gop_per_s<8>(threads, rounds, [] {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  });
}
#else
bool has_tiles() { return true; }
#if defined(HAS_BFLOAT16)
double bfloat16_gop_per_s(int threads, const Rounds& rounds) { return gemm_gop_per_s<BFloat16>(threads, rounds); }
#endif
double int8_gop_per_s(int threads, const Rounds& rounds) { return gemm_gop_per_s<Int8>(threads, rounds); }
#endif

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : static_cast<int>(std::thread::hardware_concurrency());
  const bool now = argc > 2 && std::string_view(argv[2]) == "--now";
  const Rounds& rounds = now ? kNow : kBest;
  if (threads < 1 || argc > 3 || (argc > 2 && !now)) {
    std::fprintf(stderr, "usage: machine_ceilings [THREADS [--now]]\n");
    return 1;
  }
  if (!has_tiles()) {
    std::fprintf(stderr, "machine_ceilings: AMX is compiled in, but the operating system does not grant it\n");
    return 1;
  }
  std::printf("{\"threads\": %d, \"isa\": \"%s\", ", threads, kIsa);
  std::printf("\"read_gb_per_s\": %.2f, ", read_gb_per_s(threads, rounds));
  std::printf("\"gemm_gop_per_s\": {\"float32\": %.1f, ", gemm_gop_per_s<Float32>(threads, rounds));
#if defined(HAS_BFLOAT16) || defined(__AMX_INT8__)
  std::printf("\"bfloat16\": %.1f, ", bfloat16_gop_per_s(threads, rounds));
#else
  std::printf("\"bfloat16\": null, ");
#endif
  std::printf("\"int8\": %.1f}}\n", int8_gop_per_s(threads, rounds));
  return 0;
}
