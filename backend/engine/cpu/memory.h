#pragma once

#include <cstddef>
#include <span>
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
  explicit Buffer(size_t count) : memory_(count * sizeof(T)), count_(count) {}

  T* data() const { return static_cast<T*>(memory_.data()); }
  size_t size() const { return count_; }
  T& operator[](size_t i) const { return data()[i]; }
  std::span<T> span() const { return {data(), count_}; }

 private:
  Memory memory_;
  size_t count_ = 0;
};

}  // namespace inflight::cpu
