#include "engine/cpu/packed_matrix.h"

#include <cstring>

#include "check.h"
#include "random_matrix.h"

using namespace inflight;
using namespace inflight::cpu;
using test::MatrixShape;

namespace {

constexpr auto kF32 = WeightType::kFloat32;
constexpr auto kBF16 = WeightType::kBFloat16;
constexpr auto kF16 = WeightType::kFloat16;
constexpr auto kInt8 = WeightType::kInt8;
constexpr auto kInt4 = WeightType::kInt4;

const MatrixShape kShapes[] = {
    {kF32, 1, 1},       {kF32, 16, 7},      {kF32, 35, 64},      {kBF16, 1, 1},       {kBF16, 33, 10},
    {kF16, 17, 31},     {kInt8, 1, 1, 1},   {kInt8, 16, 32, 1},  {kInt8, 20, 96, 3},  {kInt8, 48, 64, 4},
    {kInt8, 3, 100, 1}, {kInt8, 18, 35, 7}, {kInt8, 18, 35, 35}, {kInt4, 1, 2, 1},    {kInt4, 16, 32, 1},
    {kInt4, 20, 96, 3}, {kInt4, 48, 64, 4}, {kInt4, 3, 100, 1},  {kInt4, 18, 70, 14}, {kInt4, 18, 34, 34},
    {kInt4, 5, 256, 2}, {kInt4, 5, 96, 2},  {kInt8, 5, 1000, 8}, {kInt8, 5, 256, 4},
};

// One well-formed blob to be spoiled: int4, [20, 96], 3 groups, with minimums.
std::vector<std::byte> sample_blob() {
  std::mt19937 random(1);
  return pack_matrix(test::random_matrix({kInt4, 20, 96, 3, true, true}, random).source());
}

template <class T>
std::vector<std::byte> with_field(std::vector<std::byte> blob, size_t offset, T value) {
  std::memcpy(blob.data() + offset, &value, sizeof value);
  return blob;
}

}  // namespace

TEST(rows_come_back_as_they_went_in) {
  std::mt19937 random(2);
  for (MatrixShape shape : kShapes) {
    for (const bool has_minimum : {false, true}) {
      for (const bool half_scales : {false, true}) {
        if (shape.type != kInt4 && has_minimum) continue;
        if (shape.groups == 0 && half_scales) continue;
        shape.has_minimum = has_minimum;
        shape.half_scales = half_scales;
        const auto matrix = test::random_matrix(shape, random);
        const auto blob = pack_matrix(matrix.source());
        CHECK_EQ(blob.size() % 64, 0u);
        const PackedMatrix packed(blob, "m");
        CHECK_EQ(packed.rows(), shape.rows);
        CHECK_EQ(packed.columns(), shape.columns);
        CHECK_EQ(packed.layout().half_scales, half_scales);
        std::vector<float> row(shape.columns);
        for (int64_t r = 0; r < shape.rows; ++r) {
          packed.row(r, row.data());
          for (int64_t k = 0; k < shape.columns; ++k) {
            const double expected = matrix.values[r * shape.columns + k];
            CHECK(std::abs(row[k] - expected) <= 1e-6 * std::abs(expected) + 1e-7);
          }
        }
      }
    }
  }
}

TEST(a_blob_may_lie_at_any_address) {
  const auto blob = sample_blob();
  std::vector<float> expected(96), row(96);
  PackedMatrix(blob, "m").row(19, expected.data());
  for (size_t shift = 1; shift < 64; ++shift) {
    std::vector<std::byte> copy(blob.size() + shift);
    std::memcpy(copy.data() + shift, blob.data(), blob.size());
    PackedMatrix(std::span(copy).subspan(shift), "m").row(19, row.data());
    CHECK(row == expected);
  }
}

TEST(groups_of_a_multiple_of_32_columns_are_packed_without_gaps) {
  std::mt19937 random(3);
  for (const int64_t groups : {1, 2, 3, 6}) {
    const auto matrix = test::random_matrix({kInt8, 16, 192, groups}, random);
    const auto blob = pack_matrix(matrix.source());
    const PackedLayout layout = PackedMatrix(blob, "m").layout();
    CHECK_EQ(layout.segment_columns, 32);
    CHECK_EQ(layout.packed_columns, 192);
  }
}

TEST(scales_that_float16_cannot_hold_stay_float32) {
  std::mt19937 random(4);
  auto matrix = test::random_matrix({kInt4, 16, 64, 2, true, true}, random);
  CHECK(PackedMatrix(pack_matrix(matrix.source()), "m").layout().half_scales);
  for (const float value : {0.1f, 1e-9f, 70000.0f, 3e38f}) {
    matrix.minimum[5] = value;
    CHECK(!PackedMatrix(pack_matrix(matrix.source()), "m").layout().half_scales);
  }
  for (const float value : {0.0f, -0.0f, 6e-8f / 6e-8f, 65504.0f, 0x1p-24f, -0x1p-14f}) {
    matrix.minimum[5] = value;
    CHECK(PackedMatrix(pack_matrix(matrix.source()), "m").layout().half_scales);
  }
}

TEST(float16_converts_both_ways) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = float16_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    CHECK_EQ(float_to_float16(value), bits);
  }
  CHECK_EQ(float16_to_float(0x3c00), 1.0f);
  CHECK_EQ(float16_to_float(0x0001), 0x1p-24f);
  CHECK_EQ(float16_to_float(0xfbff), -65504.0f);
  CHECK(std::isinf(float16_to_float(0x7c00)));
  CHECK(std::isnan(float16_to_float(0x7e00)));
}

TEST(malformed_blobs_are_refused_by_name) {
  const auto invalid = ErrorCode::kInvalidArgument;
  const auto blob = sample_blob();
  const auto open = [](const std::vector<std::byte>& bytes) { PackedMatrix(bytes, "layer.weight"); };
  CHECK_ERROR(open({}), invalid, "tensor layer.weight");
  CHECK_ERROR(open(std::vector<std::byte>(63)), invalid, "it has 63 bytes");
  CHECK_ERROR(open(std::vector<std::byte>(64)), invalid, "does not begin with INFLMATX");
  CHECK_ERROR(open(with_field(blob, 8, uint32_t{7})), invalid, "version is 7");
  CHECK_ERROR(open(with_field(blob, 12, uint32_t{5})), invalid, "type is 5");
  CHECK_ERROR(open(with_field(blob, 16, int64_t{0})), invalid, "shape [0, 96]");
  CHECK_ERROR(open(with_field(blob, 16, int64_t{-16})), invalid, "shape [-16, 96]");
  CHECK_ERROR(open(with_field(blob, 24, INT64_MAX)), invalid, "shape [20, ");
  CHECK_ERROR(open(with_field(blob, 32, int64_t{5})), invalid, "5 groups do not divide 96");
  CHECK_ERROR(open(with_field(blob, 32, int64_t{0})), invalid, "0 groups");
  CHECK_ERROR(open(with_field(blob, 40, uint32_t{8})), invalid, "flags are 8");
  CHECK_ERROR(open(with_field(blob, 16, int64_t{33})), invalid, "bytes instead of");
  CHECK_ERROR(open(with_field(blob, 16, int64_t{1} << 28)), invalid, "bytes instead of");
  CHECK_ERROR(open(std::vector(blob.begin(), blob.end() - 1)), invalid, "rebuild the engine");
  auto longer = blob;
  longer.resize(blob.size() + 64);
  CHECK_ERROR(open(longer), invalid, "bytes instead of");
}

TEST(random_headers_never_do_harm) {
  std::mt19937 random(5);
  const auto blob = sample_blob();
  for (int round = 0; round < 20000; ++round) {
    auto spoiled = blob;
    for (int change = 0; change < 3; ++change) spoiled[random() % 64] = static_cast<std::byte>(random());
    try {
      const PackedMatrix packed(spoiled, "m");
      std::vector<float> row(packed.columns());
      packed.row(packed.rows() - 1, row.data());
    } catch (const Error&) {
    }
  }
}

TEST(contradictory_sources_are_refused) {
  const auto invalid = ErrorCode::kInvalidArgument;
  const std::vector<std::byte> data(4096);
  const std::vector<float> scale(64, 1.0f);
  const auto pack = [&](MatrixSource source) {
    source.data = data.data();
    pack_matrix(source);
  };
  CHECK_ERROR(pack({.type = kF32, .rows = 0, .columns = 4, .data = nullptr}), invalid, "shape [0, 4]");
  CHECK_ERROR(pack({.type = kF32, .rows = 4, .columns = 4, .groups = 2, .data = nullptr}), invalid, "2 groups");
  CHECK_ERROR(pack({.type = kF32, .rows = 4, .columns = 4, .data = nullptr, .scale = scale.data()}), invalid,
              "float weights take no scale");
  CHECK_ERROR(pack({.type = kInt8, .rows = 4, .columns = 4, .groups = 1, .data = nullptr}), invalid, "need a scale");
  CHECK_ERROR(pack({.type = kInt8, .rows = 4, .columns = 4, .groups = 3, .data = nullptr, .scale = scale.data()}),
              invalid, "3 groups do not divide 4 columns");
  CHECK_ERROR(pack({.type = kInt4, .rows = 4, .columns = 5, .groups = 1, .data = nullptr, .scale = scale.data()}),
              invalid, "even number of columns");
  CHECK_ERROR(pack({.type = kInt8,
                    .rows = 4,
                    .columns = 4,
                    .groups = 1,
                    .data = nullptr,
                    .scale = scale.data(),
                    .minimum = scale.data()}),
              invalid, "only int4 weights take a minimum");
}

TEST_MAIN()
