#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

// The matrix unit's eight tile registers: up to 16 rows of 64 bytes each.
namespace inflight::cpu {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 1024;

// _tile_loadd(t, kZeros, 0) is _tile_zero(t) without what that costs on Sapphire and Emerald Rapids: a product that
// adds to a tile of _tile_zero() waits for all products before it (19 ns each instead of 6).
alignas(64) constexpr std::byte kZeros[64] = {};

// Sets the tile registers up for as long as it lives: 0 to 5, the sums and what stands on the left of a product, with
// `rows` rows, 6 and 7, the right, with 16. While they are in use, a context switch saves 8 KB more.
class TilesInUse {
 public:
  explicit TilesInUse(int64_t rows = kTileRows) {
    const auto left = static_cast<uint8_t>(rows);
    const struct alignas(64) {
      uint8_t palette, start_row, reserved[14];
      uint16_t row_bytes[16];
      uint8_t rows[16];
    } configuration = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {left, left, left, left, left, left, 16, 16}};
    asm volatile("ldtilecfg %0" : : "m"(configuration));  // GCC 12's intrinsic names only 8 bytes of it
  }
  ~TilesInUse() { _tile_release(); }
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;
};

// The compiler does not know what _tile_loadd reads (GCC 12): call this after writing it.
inline void make_visible_to_tiles() { asm volatile("" : : : "memory"); }

}  // namespace
}  // namespace inflight::cpu
