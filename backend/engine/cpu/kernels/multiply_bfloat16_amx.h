#pragma once

#include "engine/cpu/kernels/tiles_amx.h"

// Products of bfloat16 matrices in the matrix unit. A word is 32 bits, two values that lie behind each other along the
// depth of the product. Each file that includes this has functions of its own, compiled with its own flags.
namespace inflight::cpu {
namespace {

constexpr int64_t kWordsPerTile = 16;

// c (+)= a · b for a [row_tiles * rows_per_tile, depth] words, b [depth, vectors * 16] words, each with its rows'
// stride in words; depth is a multiple of kWordsPerTile. Every 16 of b's columns have a pointer of their own.
// TilesInUse must have rows_per_tile. With `ahead`, as many words as are read at each pointer of b are prefetched
// there.
struct Bfloat16Product {
  const float* a;
  int64_t a_stride;
  const float* const* b;
  int64_t b_stride;
  float* c;
  int64_t c_stride;
  int64_t row_tiles;
  int64_t rows_per_tile;
  int64_t vectors;
  int64_t depth;
  const float* const* ahead = nullptr;
  bool accumulates = false;
};

template <int kRowTiles, int kVectors>
void multiply_tiles(const Bfloat16Product& product, int64_t row_tile, int64_t vector) {
  const int64_t a_bytes = product.a_stride * 4, b_bytes = product.b_stride * 4, c_bytes = product.c_stride * 4;
  const float* first_a = product.a + row_tile * product.rows_per_tile * product.a_stride;
  const float* second_a = first_a + product.rows_per_tile * product.a_stride;
  const float* first_b = product.b[vector];
  const float* second_b = product.b[vector + kVectors - 1];
  float* first_c = product.c + row_tile * product.rows_per_tile * product.c_stride + vector * 16;
  float* second_c = first_c + product.rows_per_tile * product.c_stride;
  if (product.accumulates) {
    _tile_loadd(0, first_c, c_bytes);
    if constexpr (kVectors == 2) _tile_loadd(1, first_c + 16, c_bytes);
    if constexpr (kRowTiles == 2) _tile_loadd(2, second_c, c_bytes);
    if constexpr (kRowTiles == 2 && kVectors == 2) _tile_loadd(3, second_c + 16, c_bytes);
  } else {
    _tile_loadd(0, kZeros, 0);
    if constexpr (kVectors == 2) _tile_loadd(1, kZeros, 0);
    if constexpr (kRowTiles == 2) _tile_loadd(2, kZeros, 0);
    if constexpr (kRowTiles == 2 && kVectors == 2) _tile_loadd(3, kZeros, 0);
  }
  for (int64_t k = 0; k < product.depth; k += kWordsPerTile) {
    _tile_loadd(4, first_a + k, a_bytes);
    _tile_loadd(6, first_b + k * product.b_stride, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kVectors == 2) {
      _tile_loadd(7, second_b + k * product.b_stride, b_bytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRowTiles == 2) {
      _tile_loadd(5, second_a + k, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kVectors == 2) _tile_dpbf16ps(3, 5, 7);
    }
    if (product.ahead == nullptr) continue;
    for (int v = 0; v < kVectors; ++v) {
      for (int64_t i = 0; i < kWordsPerTile; ++i) {
        _mm_prefetch(product.ahead[vector + v] + (k + i) * 16, _MM_HINT_T0);
      }
    }
  }
  _tile_stored(0, first_c, c_bytes);
  if constexpr (kVectors == 2) _tile_stored(1, first_c + 16, c_bytes);
  if constexpr (kRowTiles == 2) _tile_stored(2, second_c, c_bytes);
  if constexpr (kRowTiles == 2 && kVectors == 2) _tile_stored(3, second_c + 16, c_bytes);
}

template <int kVectors>
void multiply_vectors(const Bfloat16Product& product, int64_t vector) {
  int64_t row_tile = 0;
  for (; row_tile + 2 <= product.row_tiles; row_tile += 2) multiply_tiles<2, kVectors>(product, row_tile, vector);
  if (row_tile < product.row_tiles) multiply_tiles<1, kVectors>(product, row_tile, vector);
}

void multiply(const Bfloat16Product& product) {
  make_visible_to_tiles();
  int64_t vector = 0;
  for (; vector + 2 <= product.vectors; vector += 2) multiply_vectors<2>(product, vector);
  if (vector < product.vectors) multiply_vectors<1>(product, vector);
}

}  // namespace
}  // namespace inflight::cpu
