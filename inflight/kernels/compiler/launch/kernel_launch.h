#pragma once

// What every compiled kernel's launcher shares. It calls the CUDA driver through entry points that the CUDA run time
// resolves once, so that nothing links against libcuda.

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

namespace inflight::kernels {

enum class DataType { kBFloat16, kFloat16, kFloat32, kFloat8E4M3, kInt8, kUInt8, kInt32, kInt64 };

// Empty, or what was wrong and what to change. Making an empty one allocates nothing.
class [[nodiscard]] Status {
 public:
  Status() = default;
  static Status error(std::string message);
  bool ok() const { return message_.empty(); }
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

// One compiled variant of a kernel.
struct Variant {
  int target;             // compute capability, 90 for 9.0
  int tile;               // index of its tile
  const int64_t* values;  // one for each of KernelTable::choices
  const void* image;      // cubin
  uint32_t shared_bytes;
  uint32_t threads;
};

// A type variable or key of a kernel, and how its values are called in messages.
struct Choice {
  const char* name;
  std::span<const char* const> value_names;  // empty: numbers
};

struct Grid {
  int64_t x, y, z;
};

// The variants of one kernel, and which of them the GPUs of this process have loaded.
class KernelTable {
 public:
  KernelTable(const char* name, const char* symbol, std::span<const Choice> choices, std::span<const Variant> variants);

  // The best compiled target that the current device runs.
  Status find_target(int& target) const;

  // Loads the variant, unless it is loaded, and launches it. `parameters` are pointers to the kernel's arguments.
  // An empty grid launches nothing: there is nothing to compute. A `programmatic` launch may start while the kernel
  // before it in the stream ends (programmatic dependent launch).
  Status launch(int target, int tile, std::span<const int64_t> values, const Grid& grid, bool programmatic,
                void** parameters, CUstream stream);

  // Loads the variant alone: what a launch within stream capture needs to have happened before.
  Status load(int target, int tile, std::span<const int64_t> values);

  // Messages.
  Status no_tile(int target, std::initializer_list<const char*> conditions) const;
  Status not_aligned(const char* argument, bool is_pointer, uint64_t value) const;

 private:
  static constexpr int kMaxDevices = 64;

  Status find(int target, int tile, std::span<const int64_t> values, const Variant** variant) const;
  Status function(const Variant& variant, CUfunction* function);
  Status not_compiled(int target, int tile, std::span<const int64_t> values) const;
  std::string value_name(size_t choice, int64_t value) const;

  const char* name_;
  const char* symbol_;
  std::span<const Choice> choices_;
  std::span<const Variant> variants_;
  std::unique_ptr<std::atomic<CUfunction>[]> loaded_;  // [variants, kMaxDevices]
};

}  // namespace inflight::kernels
