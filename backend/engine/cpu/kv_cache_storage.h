#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/cpu/memory.h"

namespace inflight::cpu {

struct KvCacheShape {
  int32_t num_layers;
  int32_t num_kv_heads;
  int32_t head_size;
  int32_t tokens_per_block;
  bool is_bfloat16 = false;  // or float32; then tokens_per_block and head_size are even

  // 32-bit words of one block's keys (or values) of one head.
  size_t head_block_words() const { return size_t(head_size) * tokens_per_block / (is_bfloat16 ? 2 : 1); }
  int64_t bytes_per_block() const {
    return int64_t(2 * sizeof(float)) * num_layers * num_kv_heads * static_cast<int64_t>(head_block_words());
  }
};

// The paged KV cache's memory: keys and values of `num_blocks` blocks in every layer.
//
// Keys lie transposed, [head_size, tokens_per_block], so that the dot products of one query with
// neighboring tokens fill a vector; values lie [tokens_per_block, head_size]. In bfloat16, pairs along the
// first of these dimensions lie together, as dot-product instructions want them:
// [head_size / 2, tokens_per_block, 2] and [tokens_per_block / 2, head_size, 2].
class KvCacheStorage {
 public:
  KvCacheStorage(const KvCacheShape& shape, int32_t num_blocks);

  const KvCacheShape& shape() const { return shape_; }
  int32_t num_blocks() const { return num_blocks_; }
  float* keys(int32_t layer, int32_t block, int32_t kv_head) const {
    return layers_[layer].data() + block * block_stride() + kv_head * 2 * shape_.head_block_words();
  }
  float* values(int32_t layer, int32_t block, int32_t kv_head) const {
    return keys(layer, block, kv_head) + shape_.head_block_words();
  }

  // Words from a block to the next in one layer.
  int64_t block_stride() const {
    return int64_t(2) * shape_.num_kv_heads * static_cast<int64_t>(shape_.head_block_words());
  }

  // Writes one token's keys and values, each [num_kv_heads, head_size], to position `offset` of a block: of a cache of
  // float32, and of one of bfloat16.
  void write(int32_t layer, int32_t block, int32_t offset, const float* keys, const float* values) const;
  void write(int32_t layer, int32_t block, int32_t offset, const uint16_t* keys, const uint16_t* values) const;

  void copy_block(int32_t source, int32_t destination) const;

 private:
  KvCacheShape shape_;
  int32_t num_blocks_;
  std::vector<Buffer<float>> layers_;  // each [num_blocks, num_kv_heads, keys|values, head_block_words]
};

}  // namespace inflight::cpu
