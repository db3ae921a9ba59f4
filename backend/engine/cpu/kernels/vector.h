#pragma once

#include <cstdint>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

// Vectors of floats as wide as the instruction set that this file is compiled for. Everything here, and
// everything in a file that includes it, lives in the namespace INFLIGHT_ISA (portable, avx2, avx512, ...),
// so that the linker never merges code of two instruction sets. For the same reason such files use no
// inline functions of the standard library.
namespace inflight::cpu::INFLIGHT_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntVector __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Vector load(const float* p) {
  Vector v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Vector v) { __builtin_memcpy(p, &v, sizeof v); }

inline Vector broadcast(float x) { return Vector{} + x; }

inline IntVector lane_indices() {
  IntVector v;
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}

inline Vector maximum(Vector a, Vector b) { return a > b ? a : b; }

inline float sum(Vector v) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2) v += __builtin_shuffle(v, lane_indices() ^ distance);
  return v[0];
}

inline float maximum(Vector v) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    v = maximum(v, __builtin_shuffle(v, lane_indices() ^ distance));
  }
  return v[0];
}

// e^x within 2 ulp for x in [-87, 88]; outside, the value at the nearer end. NaN stays NaN.
// Range reduction to |r| <= ln(2) / 2 and the polynomial of Cephes' expf.
inline Vector exp(Vector x) {
#if defined(__AVX512F__)
  x = _mm512_min_ps(_mm512_set1_ps(88.0f), _mm512_max_ps(_mm512_set1_ps(-87.0f), x));  // a NaN on the right is kept
  const Vector n = _mm512_roundscale_ps(x * 1.44269504088896341f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Vector least = broadcast(-87.0f);
  const Vector most = broadcast(88.0f);
  x = x < least ? least : x;
  x = x > most ? most : x;
  const Vector rounder = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vector n = (x * 1.44269504088896341f + rounder) - rounder;
#endif
  const Vector r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Vector p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, n);
#else
  const IntVector exponent = (__builtin_convertvector(n, IntVector) + 127) << 23;
  return p * __builtin_bit_cast(Vector, exponent);
#endif
}

}  // namespace inflight::cpu::INFLIGHT_ISA
