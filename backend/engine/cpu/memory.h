#pragma once

#include <cstddef>
#include <utility>

namespace inflight::cpu {

// Zeroed, page-aligned memory that costs nothing until it is touched. Throws kUnavailable when the
// address space or the machine's overcommit limit does not hold it.
class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes);
  ~Memory();
  Memory(Memory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// `count` elements of T in such memory.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : memory_(count * sizeof(T)) {}

  T* data() const { return static_cast<T*>(memory_.data()); }

 private:
  Memory memory_;
};

}  // namespace inflight::cpu
