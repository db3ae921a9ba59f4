#pragma once

#include <numeric>
#include <random>

#include "device.cuh"

namespace inflight::gpu_test {

// Keys and values of sequences, in blocks in random order. [blocks, tokens_per_block, kv_heads, head_size]
template <class T>
struct PagedCache {
  int kv_heads, head_size, block_shift, table_stride;
  std::vector<int32_t> lengths_host;
  Array<int32_t> lengths, table;
  Array<T> keys, values;

  PagedCache(std::vector<int32_t> lengths_in, int kv_heads_in, int head_size_in, int block_shift_in, uint64_t seed)
      : kv_heads(kv_heads_in),
        head_size(head_size_in),
        block_shift(block_shift_in),
        table_stride(blocks_of(*std::ranges::max_element(lengths_in), block_shift_in)),
        lengths_host(lengths_in),
        lengths(lengths_in),
        table(make_table(lengths_in, block_shift_in, table_stride, seed)),
        keys(pool_size()),
        values(pool_size()) {
    fill(keys, 1.0f, seed + 1);
    fill(values, 1.0f, seed + 2);
  }

  int64_t block_stride() const { return int64_t{kv_heads} * head_size << block_shift; }
  int token_stride() const { return kv_heads * head_size; }
  size_t num_sequences() const { return lengths_host.size(); }

  static int blocks_of(int length, int shift) { return (length + (1 << shift) - 1) >> shift; }

 private:
  size_t pool_size() const {
    size_t blocks = 0;
    for (const int length : lengths_host) blocks += blocks_of(length, block_shift);
    return blocks * block_stride();
  }
  static std::vector<int32_t> make_table(const std::vector<int32_t>& lengths, int shift, int stride, uint64_t seed) {
    size_t blocks = 0;
    for (const int length : lengths) blocks += blocks_of(length, shift);
    std::vector<int32_t> order(blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    std::vector<int32_t> result(lengths.size() * stride, 1 << 30);  // whoever reads past a sequence's blocks faults
    size_t next = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
      for (int j = 0; j < blocks_of(lengths[i], shift); ++j) result[i * stride + j] = order[next++];
    }
    return result;
  }
};

}  // namespace inflight::gpu_test
