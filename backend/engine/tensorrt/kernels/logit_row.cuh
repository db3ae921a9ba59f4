#pragma once

// One row of logits as a thread block reads it, and the block's sums and searches over it.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace inflight::gpu {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAllLanes = ~0u;

// Weights are e^x of x <= 0, as multiples of 2^-44: sums of up to 2^19 of them are exact, in whatever order.
constexpr double kOne = 0x1p44;

// Ordered as the values are; NaN, which counts as -inf, comes first.
using Key = uint32_t;

__device__ inline Key key_of(float value) {
  const uint32_t bits = __float_as_uint(value != value ? -INFINITY : value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float value_of(Key key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// e^x for x <= 0, bit for bit engine/token_choice.cc's, whose build contracts nothing.
__device__ inline float exp_nonpositive(float x) {
  const float y = __fmul_rn(x, 1.44269504f);
  const float clamped = y > -125.0f ? y : -125.0f;
  const float shifted = __fadd_rn(clamped, 12582912.0f);
  const float f = __fsub_rn(clamped, __fsub_rn(shifted, 12582912.0f));
  float p = 1.54035304e-4f;
  p = __fadd_rn(__fmul_rn(p, f), 1.33335581e-3f);
  p = __fadd_rn(__fmul_rn(p, f), 9.61812911e-3f);
  p = __fadd_rn(__fmul_rn(p, f), 5.55041087e-2f);
  p = __fadd_rn(__fmul_rn(p, f), 2.40226507e-1f);
  p = __fadd_rn(__fmul_rn(p, f), 6.93147181e-1f);
  p = __fadd_rn(__fmul_rn(p, f), 1.0f);
  const float result = __fmul_rn(p, __uint_as_float((__float_as_uint(shifted) + 127u) << 23));
  return y > -125.0f ? result : 0.0f;
}

// The weight of a logit beside the row's highest.
struct Weighing {
  float highest, scale;
  __device__ float weight(float logit) const { return exp_nonpositive(__fmul_rn(__fsub_rn(logit, highest), scale)); }
  __device__ uint64_t fixed(float logit) const {
    return __float2ull_rn(weight(logit) * static_cast<float>(kOne));  // a power of two: the product is exact
  }
};

// Eight logits, 16 or 32 bytes.
template <class T>
struct Eight;
template <>
struct Eight<float> {
  float4 a, b;
  __device__ float operator[](int i) const { return i < 4 ? (&a.x)[i] : (&b.x)[i - 4]; }
};
template <class T>
struct Eight {
  uint4 bits;
  __device__ float operator[](int i) const { return static_cast<float>(reinterpret_cast<const T*>(&bits)[i]); }
};

template <class T>
struct Row {
  const T* logits;  // at a multiple of 16 bytes
  int size;

  // Two values of a type differ above these bits of their keys: sign, exponent and mantissa of bfloat16 take 16 bits,
  // those of float16, with float's exponent, 19.
  static constexpr int kKeyShift = std::is_same_v<T, __nv_bfloat16> ? 16 : std::is_same_v<T, __half> ? 13 : 0;
  __device__ static Key short_key(float value) { return key_of(value) >> kKeyShift; }

  __device__ float operator[](int token) const { return static_cast<float>(logits[token]); }

  // visit(token, j, value) of each logit, j = token % 8 known at compile time. kUnroll reads are under way at once.
  template <int kUnroll = 1, class Visit>
  __device__ void for_each(Visit visit) const {
    const int whole = size / 8 * 8;
#pragma unroll kUnroll
    for (int i = threadIdx.x * 8; i < whole; i += kThreads * 8) {
      const Eight<T> values = *reinterpret_cast<const Eight<T>*>(logits + i);
#pragma unroll
      for (int j = 0; j < 8; ++j) visit(i + j, j, values[j]);
    }
    if (whole + threadIdx.x < size) visit(whole + threadIdx.x, 0, (*this)[whole + threadIdx.x]);
  }
};

// The block's sum, in every thread. `scratch` has a place for each warp.
__device__ inline uint64_t block_sum(uint64_t value, uint64_t* scratch) {
#pragma unroll
  for (int offset = 16; offset; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  __syncthreads();  // whoever reads what `scratch` held has done so
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = scratch[threadIdx.x % 32];
#pragma unroll
  for (int offset = 16; offset; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}

__device__ inline uint64_t block_max(uint64_t value, uint64_t* scratch) {
  const auto larger = [](uint64_t a, uint64_t b) { return a > b ? a : b; };
#pragma unroll
  for (int offset = 16; offset; offset /= 2) value = larger(value, __shfl_xor_sync(kAllLanes, value, offset));
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = scratch[threadIdx.x % 32];
#pragma unroll
  for (int offset = 16; offset; offset /= 2) value = larger(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

// A logit in order of likelihood: the higher value first, of equals the lower token. Zero is below all.
__device__ inline uint64_t rank_of(Key key, int token) { return uint64_t{key} << 32 | (0xffffffffu - token); }
__device__ inline Key key_of_rank(uint64_t rank) { return static_cast<Key>(rank >> 32); }
__device__ inline int token_of_rank(uint64_t rank) {
  return static_cast<int>(0xffffffffu - static_cast<uint32_t>(rank));
}

// The largest short key such that measure(keys >= it) >= target: eight-fold division, a pass over the row each time.
// amount(token, value) is what a logit counts; `above` becomes the measure of the keys above the result.
template <class T, class Amount>
__device__ Key search_key(const Row<T>& row, uint64_t target, Amount amount, uint64_t* above, uint64_t* scratch) {
  constexpr int kParts = 8;
  uint64_t low = 0, high = uint64_t{1} << (32 - row.kKeyShift);  // measure(>= low) >= target > measure(>= high)
  *above = 0;
  while (high - low > 1) {
    const uint64_t step = (high - low + kParts - 1) / kParts;
    uint64_t sums[kParts - 1] = {};
    row.for_each([&](int token, int, float value) {
      const uint64_t key = row.short_key(value);
      if (key < low + step || key >= high) return;
      const uint64_t counted = amount(token, value);
#pragma unroll
      for (int part = 1; part < kParts; ++part) sums[part - 1] += key >= low + part * step ? counted : 0;
    });
    uint64_t next_low = low, next_high = high, next_above = *above;
    for (int part = 1; part < kParts; ++part) {
      const uint64_t bound = low + part * step;
      if (bound >= high) break;
      const uint64_t measure = *above + block_sum(sums[part - 1], scratch);
      if (measure >= target) {
        next_low = bound;
      } else {
        next_high = bound;
        next_above = measure;
        break;
      }
    }
    low = next_low, high = next_high, *above = next_above;
  }
  return static_cast<Key>(low);
}

// The first token at which amount(token, value), added up in ascending order of tokens, exceeds `target`. The last
// token that counts where the whole is not more.
template <class T, class Amount>
__device__ int search_token(const Row<T>& row, uint64_t target, Amount amount, uint64_t* scratch) {
  __shared__ int chosen;
  int begin = 0, end = row.size;
  while (end - begin > 1) {
    // Warp w adds up [begin + w * share, + share): the share is a multiple of 8 while reads are 16 bytes wide.
    const int share = end - begin > 8 * kWarps ? (end - begin + 8 * kWarps - 1) / (8 * kWarps) * 8
                                               : (end - begin + kWarps - 1) / kWarps;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int first = begin + warp * share, last = min(first + share, end);
    uint64_t sum = 0;
    if (share % 8 == 0) {
      const int whole = first + max(last - first, 0) / 8 * 8;
      for (int i = first + lane * 8; i < whole; i += 32 * 8) {
        const Eight<T> values = *reinterpret_cast<const Eight<T>*>(row.logits + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum += amount(i + j, values[j]);
      }
      for (int i = whole + lane; i < last; i += 32) sum += amount(i, row[i]);
    } else {
      for (int i = first + lane; i < last; i += 32) sum += amount(i, row[i]);
    }
#pragma unroll
    for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
    __syncthreads();
    if (lane == 0) scratch[warp] = sum;
    __syncthreads();
    int part = 0, last_that_counts = 0;
    uint64_t before = 0;
    for (; part < kWarps && before + scratch[part] <= target; ++part) {
      if (scratch[part] > 0) last_that_counts = part;
      before += scratch[part];
    }
    if (part == kWarps) {  // the target is the whole: from here on the last that counts
      part = last_that_counts;
      target = ~uint64_t{0};
    } else {
      target -= before;
    }
    begin += part * share;
    end = min(begin + share, end);
  }
  __syncthreads();
  if (threadIdx.x == 0) chosen = begin;
  __syncthreads();
  return chosen;
}

}  // namespace inflight::gpu
