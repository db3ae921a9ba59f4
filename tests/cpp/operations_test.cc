#include "engine/cpu/kernels/operations.h"

#include <cstring>
#include <random>

#include "check.h"

using namespace inflight;
using namespace inflight::cpu;

namespace {

std::vector<Isa> isas() {
  std::vector<Isa> result;
  for (const Isa isa : kIsas) {
    if (supports(isa)) result.push_back(isa);
  }
  return result;
}

std::vector<float> random_floats(size_t count, std::mt19937& generator, float deviation = 1) {
  std::normal_distribution<float> distribution(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = distribution(generator);
  return values;
}

constexpr int64_t kSizes[] = {1, 2, 15, 16, 17, 64, 100};

}  // namespace

TEST(rms_norm_of_any_size) {
  std::mt19937 generator(1);
  for (const Isa isa : isas()) {
    for (const int64_t size : kSizes) {
      std::vector<float> x = random_floats(size, generator), weight = random_floats(size, generator);
      double squares = 0;
      for (const float value : x) squares += double(value) * value;
      std::vector<float> expected(size);
      for (int64_t i = 0; i < size; ++i) expected[i] = x[i] / std::sqrt(squares / size + 1e-5) * weight[i];
      operations(isa).rms_norm(x.data(), weight.data(), 1e-5f, size, x.data());
      for (int64_t i = 0; i < size; ++i) CHECK(std::abs(x[i] - expected[i]) <= 1e-6f * (1 + std::abs(expected[i])));
    }
  }
}

TEST(silu_and_multiply_of_any_size_and_magnitude) {
  std::mt19937 generator(2);
  for (const Isa isa : isas()) {
    for (const float magnitude : {0.01f, 1.0f, 30.0f, 1e4f}) {
      for (const int64_t size : kSizes) {
        const std::vector<float> gate_up = random_floats(2 * size, generator, magnitude);
        std::vector<float> y(size);
        operations(isa).silu_and_multiply(gate_up.data(), size, y.data());
        for (int64_t i = 0; i < size; ++i) {
          const double gate = gate_up[i];
          const double expected = gate / (1 + std::exp(-gate)) * gate_up[size + i];
          CHECK(std::abs(y[i] - expected) <= 1e-6 * std::abs(expected) + 1e-28);
        }
      }
    }
  }
}

TEST(silu_of_what_is_not_a_number_is_not_a_number) {
  const float gate_up[] = {NAN, 1};
  for (const Isa isa : isas()) {
    float y;
    operations(isa).silu_and_multiply(gate_up, 1, &y);
    CHECK(std::isnan(y));
  }
}

TEST(rotate_turns_pairs_half_a_head_apart) {
  std::mt19937 generator(3);
  for (const Isa isa : isas()) {
    for (const int64_t half : kSizes) {
      const std::vector<float> x = random_floats(3 * 2 * half, generator);
      const std::vector<float> cos = random_floats(half, generator), sin = random_floats(half, generator);
      std::vector<float> y = x;
      operations(isa).rotate(y.data(), 3, cos.data(), sin.data(), half);
      for (int64_t head = 0; head < 3; ++head) {
        for (int64_t i = 0; i < half; ++i) {
          const int64_t first = head * 2 * half + i, second = first + half;
          CHECK(std::abs(y[first] - (x[first] * cos[i] - x[second] * sin[i])) < 1e-5);
          CHECK(std::abs(y[second] - (x[second] * cos[i] + x[first] * sin[i])) < 1e-5);
        }
      }
    }
  }
}

TEST(bfloat16_is_the_nearest_and_even_of_two) {
  const auto rounded = [](uint32_t bits) {
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40;
    const uint32_t rest = bits & 0xffff, lower = bits >> 16;
    return rest > 0x8000 || (rest == 0x8000 && lower % 2 == 1) ? lower + 1 : lower;
  };
  std::vector<uint32_t> bits = {0,          0x80000000, 1,          0x7fff,     0x8000,     0x8001,     0x18000,
                                0x3f808000, 0x3f818000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7f800001, 0xffffffff};
  std::mt19937 generator(5);
  while (bits.size() < 1000) bits.push_back(static_cast<uint32_t>(generator()));
  for (const size_t size : {0, 1, 7, 14, 16, 33, 1000}) {
    for (const Isa isa : isas()) {
      std::vector<float> x(size + 1, 77);
      std::memcpy(x.data(), bits.data(), size * sizeof(float));
      auto* halves = reinterpret_cast<uint16_t*>(x.data());  // in place
      operations(isa).to_bfloat16(x.data(), static_cast<int64_t>(size), halves);
      for (size_t i = 0; i < size; ++i) {
        uint16_t half;
        std::memcpy(&half, halves + i, sizeof half);
        CHECK_EQ(half, rounded(bits[i]));
      }
      CHECK_EQ(x[size], 77);
    }
  }
}

// Every instruction set against the definition, over shapes that leave remainders everywhere.
TEST(attention_over_paged_keys_and_values) {
  std::mt19937 generator(4);
  const auto any = [&](int32_t least, int32_t most) { return least + int32_t(generator() % (most - least + 1)); };
  for (int round = 0; round < 600; ++round) {
    const bool is_bfloat16 = round % 2 == 1;
    const int32_t values_per_word = is_bfloat16 ? 2 : 1;
    // Every other head is of a size that a matrix unit takes.
    const int32_t head_size = round % 4 < 2 ? 32 * any(1, 4) : any(1, 35) * (is_bfloat16 ? 2 : any(1, 2));
    const int32_t heads_per_kv_head = any(1, 7);
    const int32_t tokens_per_block = values_per_word << any(0, 7);
    const int32_t num_tokens = any(1, kMaxAttentionRows / heads_per_kv_head), first_position = any(0, 200);
    const int32_t window = any(0, 1) * any(1, 250), sink_tokens = any(0, 1) * any(1, 150);
    const int32_t length = first_position + num_tokens, num_blocks = (length + tokens_per_block - 1) / tokens_per_block;

    const int64_t values_offset = int64_t(head_size) * tokens_per_block / values_per_word;
    const int64_t block_stride = 2 * values_offset;
    std::vector<float> cache(block_stride * num_blocks, NAN);
    std::vector<int32_t> block_ids(num_blocks);
    for (int32_t i = 0; i < num_blocks; ++i) block_ids[i] = num_blocks - 1 - i;
    std::vector<float> keys = random_floats(length * head_size, generator);
    std::vector<float> values = random_floats(length * head_size, generator);
    if (is_bfloat16) {
      for (std::vector<float>* floats : {&keys, &values}) {
        for (float& x : *floats) x = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xffff0000);
      }
    }
    for (int32_t i = 0; i < length; ++i) {
      float* block = cache.data() + block_ids[i / tokens_per_block] * block_stride;
      const int32_t offset = i % tokens_per_block;
      for (int32_t j = 0; j < head_size; ++j) {
        if (is_bfloat16) {
          const auto half = [](float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); };
          uint16_t* halves = reinterpret_cast<uint16_t*>(block);
          halves[2 * (j / 2 * tokens_per_block + offset) + j % 2] = half(keys[i * head_size + j]);
          halves[2 * (values_offset + offset / 2 * head_size + j) + offset % 2] = half(values[i * head_size + j]);
          continue;
        }
        block[j * tokens_per_block + offset] = keys[i * head_size + j];
        block[values_offset + offset * head_size + j] = values[i * head_size + j];
      }
    }
    // Blocks that no token sees are anywhere.
    const int32_t least_visible = window > 0 ? std::max(0, first_position - window + 1) : 0;
    for (int32_t i = 0; i < num_blocks; ++i) {
      if (i * tokens_per_block >= sink_tokens && (i + 1) * tokens_per_block <= least_visible) block_ids[i] = -(1 << 20);
    }
    const int64_t stride = heads_per_kv_head * head_size + 3;
    const std::vector<float> queries = random_floats(num_tokens * stride, generator, 3);
    for (const Isa isa : isas()) {
      // Its dot products round queries and weights as well; scores grow with the head.
      const double rounding = head_size <= 70 ? 0.06 : 0.08;
      const double tolerance = is_bfloat16 && isa >= Isa::kAvx512Bf16 ? rounding : 2e-5;
      std::vector<float> output(num_tokens * stride, 77), scratch(attention_scratch_size(kMaxAttentionRows, head_size));
      operations(isa).attention({.queries = queries.data(),
                                 .output = output.data(),
                                 .query_stride = stride,
                                 .output_stride = stride,
                                 .num_tokens = num_tokens,
                                 .heads_per_kv_head = heads_per_kv_head,
                                 .head_size = head_size,
                                 .first_position = first_position,
                                 .window = window,
                                 .sink_tokens = sink_tokens,
                                 .scale = 0.3f,
                                 .cache = cache.data(),
                                 .is_bfloat16 = is_bfloat16,
                                 .block_stride = block_stride,
                                 .block_ids = block_ids.data(),
                                 .tokens_per_block = tokens_per_block,
                                 .scratch = scratch.data()});
      for (int32_t token = 0; token < num_tokens; ++token) {
        for (int32_t head = 0; head < heads_per_kv_head; ++head) {
          const float* query = queries.data() + token * stride + head * head_size;
          const int32_t position = first_position + token;
          const int32_t first = window > 0 ? std::max(0, position - window + 1) : 0;
          double sum = 0;
          std::vector<double> expected(head_size);
          for (int32_t i = 0; i <= position; ++i) {
            if (i >= sink_tokens && i < first) continue;
            double score = 0;
            for (int32_t j = 0; j < head_size; ++j) score += 0.3 * query[j] * keys[i * head_size + j];
            sum += std::exp(score);
            for (int32_t j = 0; j < head_size; ++j) expected[j] += std::exp(score) * values[i * head_size + j];
          }
          for (int32_t j = 0; j < head_size; ++j) {
            CHECK(std::abs(output[token * stride + head * head_size + j] - expected[j] / sum) < tolerance);
          }
        }
      }
    }
  }
}

TEST(a_token_attends_alike_alone_and_beside_others) {
  std::mt19937 generator(6);
  constexpr int32_t kHeadSize = 64, kHeadsPerKvHead = 3, kTokens = 20, kTokensPerBlock = 32, kBlocks = 6;
  constexpr int64_t kStride = kHeadsPerKvHead * kHeadSize;
  for (const bool is_bfloat16 : {false, true}) {
    const int64_t block_stride = int64_t(2) * kHeadSize * kTokensPerBlock / (is_bfloat16 ? 2 : 1);
    std::vector<float> cache = random_floats(block_stride * kBlocks, generator);
    if (is_bfloat16) {
      auto* halves = reinterpret_cast<uint16_t*>(cache.data());
      const auto values = random_floats(2 * cache.size(), generator);
      for (size_t i = 0; i < values.size(); ++i) halves[i] = std::bit_cast<uint32_t>(values[i]) >> 16;
    }
    const std::vector<int32_t> block_ids = {3, 1, 5, 0, 4, 2};
    const auto queries = random_floats(kTokens * kStride, generator);
    for (const Isa isa : isas()) {
      std::vector<float> scratch(attention_scratch_size(kMaxAttentionRows, kHeadSize));
      const auto attend = [&](int32_t first, int32_t count, int32_t first_position, int32_t window, float* output) {
        operations(isa).attention({.queries = queries.data() + first * kStride,
                                   .output = output + first * kStride,
                                   .query_stride = kStride,
                                   .output_stride = kStride,
                                   .num_tokens = count,
                                   .heads_per_kv_head = kHeadsPerKvHead,
                                   .head_size = kHeadSize,
                                   .first_position = first_position + first,
                                   .window = window,
                                   .sink_tokens = window / 4,
                                   .scale = 0.2f,
                                   .cache = cache.data(),
                                   .is_bfloat16 = is_bfloat16,
                                   .block_stride = block_stride,
                                   .block_ids = block_ids.data(),
                                   .tokens_per_block = kTokensPerBlock,
                                   .scratch = scratch.data()});
      };
      for (const int32_t first_position : {0, 50, 61, 150}) {
        for (const int32_t window : {0, 33}) {
          std::vector<float> together(kTokens * kStride), alone(kTokens * kStride), parts(kTokens * kStride);
          attend(0, kTokens, first_position, window, together.data());
          for (int32_t token = 0; token < kTokens; ++token) attend(token, 1, first_position, window, alone.data());
          for (int32_t token = 0; token < kTokens; token += 7) {
            attend(token, std::min(7, kTokens - token), first_position, window, parts.data());
          }
          CHECK(alone == together);
          CHECK(parts == together);
        }
      }
    }
  }
}

TEST_MAIN()
