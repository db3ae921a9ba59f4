#pragma once

// Constants of operations ↔ bytes.

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "common/error.h"

namespace inflight::gpu {

class ConstantWriter {
 public:
  template <class T>
    requires std::is_trivially_copyable_v<T>
  void add(const T& value) {
    const auto* const first = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), first, first + sizeof value);
  }
  template <class T>
  void add_all(std::span<const T> values) {
    add(static_cast<uint64_t>(values.size()));
    for (const T& value : values) add(value);
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

// Throws Error where the bytes end too early, or, in finish(), too late.
class ConstantReader {
 public:
  explicit ConstantReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
    requires std::is_trivially_copyable_v<T>
  T next() {
    if (bytes_.size() < sizeof(T)) refuse("are cut off");
    T value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_ = bytes_.subspan(sizeof value);
    return value;
  }
  template <class T>
  std::vector<T> next_all() {
    const auto count = next<uint64_t>();
    if (count > bytes_.size() / sizeof(T)) refuse("are cut off");
    std::vector<T> values;
    for (uint64_t i = 0; i < count; ++i) values.push_back(next<T>());
    return values;
  }
  void finish() const {
    if (!bytes_.empty()) refuse("are too long");
  }

 private:
  [[noreturn]] static void refuse(const char* how) {
    throw_error(ErrorCode::kInvalidArgument, "the constants of a plugin ", how,
                ": the plan was built by another version of inflight; build it again");
  }

  std::span<const std::byte> bytes_;
};

}  // namespace inflight::gpu
