#include "engine/cpu/kv_cache_storage.h"

#include <cstring>

namespace inflight::cpu {
KvCacheStorage::KvCacheStorage(const KvCacheShape& shape, int32_t num_blocks) : shape_(shape), num_blocks_(num_blocks) {
  for (int32_t layer = 0; layer < shape.num_layers; ++layer) layers_.emplace_back(num_blocks * block_stride());
}

void KvCacheStorage::write(int32_t layer, int32_t block, int32_t offset, const float* keys, const float* values) const {
  const int32_t head_size = shape_.head_size;
  for (int32_t head = 0; head < shape_.num_kv_heads; ++head) {
    float* key_column = this->keys(layer, block, head) + offset;
    for (int32_t i = 0; i < head_size; ++i) {
      key_column[size_t(i) * shape_.tokens_per_block] = keys[head * head_size + i];
    }
    std::memcpy(this->values(layer, block, head) + size_t(offset) * head_size, values + head * head_size,
                head_size * sizeof(float));
  }
}

void KvCacheStorage::write(int32_t layer, int32_t block, int32_t offset, const uint16_t* keys,
                           const uint16_t* values) const {
  const int32_t head_size = shape_.head_size;
  for (int32_t head = 0; head < shape_.num_kv_heads; ++head, keys += head_size, values += head_size) {
    float* key_column = this->keys(layer, block, head) + offset;
    for (int32_t i = 0; i < head_size; i += 2, key_column += shape_.tokens_per_block) {
      std::memcpy(key_column, keys + i, sizeof *key_column);
    }
    float* value_words = this->values(layer, block, head) + size_t(offset / 2) * head_size;
    uint16_t* row = reinterpret_cast<uint16_t*>(value_words) + offset % 2;
    for (int32_t i = 0; i < head_size; ++i) row[2 * i] = values[i];
  }
}

void KvCacheStorage::copy_block(int32_t source, int32_t destination) const {
  if (source == destination) return;
  for (const Buffer<float>& layer : layers_) {
    std::memcpy(layer.data() + destination * block_stride(), layer.data() + source * block_stride(),
                block_stride() * sizeof(float));
  }
}

}  // namespace inflight::cpu
