#pragma once

// What a product is, and how it was measured to be computed best. Free of CUDA.

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace inflight::gpu {

enum class GemmType : int32_t { kBFloat16, kFloat16, kFloat8E4M3 };

enum class GemmEpilogue : int32_t {
  kStore,        // y = x Wᵀ
  kAddResidual,  // y = x Wᵀ + residual
  kSwiGlu,       // y = silu(gate) * up, where x Wᵀ holds gate, then up
};

// y [rows, columns] = epilogue(x [rows, depth] · W [columns, depth]ᵀ); with kSwiGlu y has columns / 2.
struct GemmShape {
  GemmType input;  // of x and W
  GemmType output;  // of y and of the residual
  GemmEpilogue epilogue;
  int32_t columns;
  int32_t depth;

  int32_t output_columns() const { return epilogue == GemmEpilogue::kSwiGlu ? columns / 2 : columns; }
  auto operator<=>(const GemmShape&) const = default;
};

std::string to_string(const GemmShape& shape);

enum class GemmMethod : int32_t {
  kCublasLt,
  kSkinny,  // skinny_gemm.h
  kSplit,   // inflight/kernels/split_gemm.py
};

// The way that was the fastest for products of `rows` rows.
struct GemmTactic {
  int32_t rows;
  GemmMethod method;
  std::array<uint64_t, 8> algorithm;  // kCublasLt: its own description of an algorithm; kSplit: the number of splits
  float microseconds;                 // as measured

  bool operator==(const GemmTactic&) const = default;
};

// Of one shape, by ascending rows.
using GemmTactics = std::vector<GemmTactic>;

// The tactic measured for the fewest rows that are enough, or for the most there were; null where none was measured.
const GemmTactic* find_tactic(const GemmTactics& tactics, int32_t rows);

// The numbers of rows to measure: powers of two without 2 and 4, and max_rows.
std::vector<int32_t> measured_rows(int32_t max_rows);

// The timing cache: tactics hold for the GPU and the cuBLASLt that they were measured with.
class TimingCache {
 public:
  TimingCache(std::string gpu, uint64_t cublaslt_version);

  // Reads what an earlier build wrote. A file that is missing or of another GPU or cuBLASLt leaves the cache empty;
  // one that cannot be read throws Error, which names it.
  void read(const std::filesystem::path& file);
  void write(const std::filesystem::path& file) const;

  const GemmTactics* find(const GemmShape& shape) const;
  void insert(const GemmShape& shape, GemmTactics tactics);

 private:
  std::string gpu_;
  uint64_t cublaslt_version_;
  std::map<std::string, GemmTactics> tactics_;  // by to_string(shape)
};

}  // namespace inflight::gpu
