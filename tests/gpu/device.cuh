#pragma once

// What the tests and benchmarks of GPU kernels share: memory, random numbers, and comparison in float64.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernel_launch.h"

namespace inflight::gpu_test {

using kernels::DataType;

inline void check(cudaError_t error, const char* file, int line) {
  if (error == cudaSuccess) return;
  std::printf("%s:%d: %s\n", file, line, cudaGetErrorString(error));
  std::exit(1);
}
#define CHECK_CUDA(call) ::inflight::gpu_test::check((call), __FILE__, __LINE__)

inline void check(const kernels::Status& status, const char* file, int line) {
  if (status.ok()) return;
  std::printf("%s:%d: %s\n", file, line, status.message().c_str());
  std::exit(1);
}
#define CHECK_LAUNCH(call) ::inflight::gpu_test::check((call), __FILE__, __LINE__)

template <class T>
constexpr DataType data_type() {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return DataType::kBFloat16;
  if constexpr (std::is_same_v<T, __half>) return DataType::kFloat16;
  if constexpr (std::is_same_v<T, float>) return DataType::kFloat32;
  if constexpr (std::is_same_v<T, __nv_fp8_e4m3>) return DataType::kFloat8E4M3;
  if constexpr (std::is_same_v<T, int8_t>) return DataType::kInt8;
}

// Bits that are NaN in every floating-point type, and no likely value of an integer.
constexpr int kPoison = 0xff;

// Device memory, poisoned: an element that no kernel wrote is found.
template <class T>
class Array {
 public:
  explicit Array(size_t size) : size_(size) {
    CHECK_CUDA(cudaMalloc(&data_, std::max<size_t>(size, 1) * sizeof(T)));
    poison();
  }
  explicit Array(const std::vector<T>& host) : Array(host.size()) {
    CHECK_CUDA(cudaMemcpy(data_, host.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  Array(Array&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  Array(const Array&) = delete;
  Array& operator=(Array&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Array() { cudaFree(data_); }

  void poison() { CHECK_CUDA(cudaMemset(data_, kPoison, size_ * sizeof(T))); }
  T* get() const { return data_; }
  size_t size() const { return size_; }
  std::vector<T> host() const {
    std::vector<T> result(size_);
    CHECK_CUDA(cudaMemcpy(result.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return result;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

__host__ __device__ inline uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

template <class T>
__global__ void fill_normal(T* data, size_t size, float scale, uint64_t seed) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < size; i += size_t{gridDim.x} * blockDim.x) {
    const uint64_t bits = mixed(seed ^ mixed(i));
    const float u = (static_cast<uint32_t>(bits) + 1.0f) * 0x1p-32f, v = static_cast<uint32_t>(bits >> 32) * 0x1p-32f;
    data[i] = T(scale * sqrtf(-2.0f * logf(u)) * cospif(2.0f * v));
  }
}

template <class T>
void fill(const Array<T>& array, float scale, uint64_t seed) {
  fill_normal<<<1024, 256>>>(array.get(), array.size(), scale, seed);
  CHECK_CUDA(cudaGetLastError());
}

template <class T>
Array<T> normal(size_t size, float scale, uint64_t seed) {
  Array<T> array(size);
  fill(array, scale, seed);
  return array;
}

template <class T>
__global__ void accumulate_error(const T* output, const double* reference, size_t size, double* sums) {
  double difference = 0, norm = 0;
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < size; i += size_t{gridDim.x} * blockDim.x) {
    const double d = static_cast<double>(static_cast<float>(output[i])) - reference[i];
    difference += d * d;
    norm += reference[i] * reference[i];
  }
  atomicAdd(&sums[0], difference);
  atomicAdd(&sums[1], norm);
}

// ‖output - reference‖ / ‖reference‖, or NaN where an output is.
template <class T>
double relative_error(const T* output, const Array<double>& reference) {
  Array<double> sums(std::vector<double>{0, 0});
  accumulate_error<<<256, 256>>>(output, reference.get(), reference.size(), sums.get());
  CHECK_CUDA(cudaDeviceSynchronize());
  const auto host = sums.host();
  return host[1] == 0 ? std::sqrt(host[0]) : std::sqrt(host[0] / host[1]);
}

// Counts checks, and prints those that fail; the largest error of each kernel is printed at the end.
class Report {
 public:
  void compare(const std::string& kernel, const std::string& what, double error, double tolerance) {
    Row& row = rows_[kernel];
    ++row.checks;
    if (!(error <= row.largest)) row.largest = error;
    if (!(error <= tolerance)) {
      ++failures_;
      std::printf("FAILED %s %s: error %.2e, at most %.1e\n", kernel.c_str(), what.c_str(), error, tolerance);
    }
  }
  // For what may rarely differ: fails when more than `allowed` of a kernel's checks do.
  void count(const std::string& kernel, const std::string& what, bool holds, int allowed) {
    Row& row = rows_[kernel];
    ++row.checks;
    if (holds) return;
    std::printf("differs: %s %s\n", kernel.c_str(), what.c_str());
    row.largest += 1;
    if (row.largest == allowed + 1) ++failures_;
  }
  int finish() const {
    for (const auto& [kernel, row] : rows_) {
      std::printf("%-28s %5d checks, largest error %.2e\n", kernel.c_str(), row.checks, row.largest);
    }
    std::printf("%s\n", failures_ == 0 ? "all passed" : "FAILURES");
    return failures_ == 0 ? 0 : 1;
  }

 private:
  struct Row {
    int checks = 0;
    double largest = 0;
  };
  std::map<std::string, Row> rows_;
  int failures_ = 0;
};

}  // namespace inflight::gpu_test
