#pragma once

#include <immintrin.h>

#include <cstdint>

// The matrix unit's eight tile registers, 16 rows of 64 bytes each.
namespace inflight::cpu {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 1024;

// Sets the tile registers up for as long as it lives. While they are in use, a context switch saves 8 KB.
class TilesInUse {
 public:
  TilesInUse() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } configuration;
    asm volatile("ldtilecfg %0" : : "m"(configuration));
  }
  ~TilesInUse() { _tile_release(); }
  TilesInUse(const TilesInUse&) = delete;
  TilesInUse& operator=(const TilesInUse&) = delete;
};

// The compiler does not know what _tile_loadd reads (GCC 12): call this after writing it.
inline void make_visible_to_tiles() { asm volatile("" : : : "memory"); }

}  // namespace
}  // namespace inflight::cpu
