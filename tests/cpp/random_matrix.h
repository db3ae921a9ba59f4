#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "engine/cpu/float_types.h"
#include "engine/cpu/packed_matrix.h"

namespace inflight::test {

struct MatrixShape {
  cpu::WeightType type;
  int64_t rows;
  int64_t columns;
  int64_t groups = 0;
  bool has_minimum = false;
  bool half_scales = false;  // scales that float16 holds exactly
};

// A random matrix in the checkpoint's layout, and the values it stands for.
struct RandomMatrix {
  MatrixShape shape;
  std::vector<std::byte> data;
  std::vector<float> scale;
  std::vector<float> minimum;
  std::vector<double> values;  // [rows, columns]

  cpu::MatrixSource source() const {
    return {.type = shape.type,
            .rows = shape.rows,
            .columns = shape.columns,
            .groups = shape.groups,
            .data = data.data(),
            .scale = scale.empty() ? nullptr : scale.data(),
            .minimum = minimum.empty() ? nullptr : minimum.data()};
  }
};

inline RandomMatrix random_float_matrix(const MatrixShape& shape, std::mt19937& random) {
  RandomMatrix matrix{shape, {}, {}, {}, {}};
  std::normal_distribution<float> normal;
  const bool is_wide = shape.type == cpu::WeightType::kFloat32;
  matrix.data.resize(shape.rows * shape.columns * (is_wide ? 4 : 2));
  for (int64_t i = 0; i < shape.rows * shape.columns; ++i) {
    float value = normal(random);
    const uint16_t half = cpu::float_to_float16(value);
    const auto brain = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
    if (shape.type == cpu::WeightType::kFloat32) {
      std::memcpy(matrix.data.data() + i * 4, &value, 4);
    } else if (shape.type == cpu::WeightType::kFloat16) {
      value = cpu::float16_to_float(half);
      std::memcpy(matrix.data.data() + i * 2, &half, 2);
    } else {
      value = cpu::bfloat16_to_float(brain);
      std::memcpy(matrix.data.data() + i * 2, &brain, 2);
    }
    matrix.values.push_back(value);
  }
  return matrix;
}

inline RandomMatrix random_integer_matrix(const MatrixShape& shape, std::mt19937& random) {
  RandomMatrix matrix{shape, {}, {}, {}, {}};
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> byte(0, 255);
  const auto scale_value = [&](float size) {
    const float value = size * normal(random);
    return shape.half_scales ? cpu::float16_to_float(cpu::float_to_float16(value)) : value;
  };
  for (int64_t i = 0; i < shape.rows * shape.groups; ++i) {
    matrix.scale.push_back(scale_value(0.05f));
    if (shape.has_minimum) matrix.minimum.push_back(scale_value(0.4f));
  }
  const bool is_int4 = shape.type == cpu::WeightType::kInt4;
  const int64_t count = shape.rows * shape.columns;
  matrix.data.resize(is_int4 ? count / 2 : count);
  for (auto& value : matrix.data) value = static_cast<std::byte>(byte(random));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t group = i / (shape.columns / shape.groups);
    const int packed = static_cast<int>(matrix.data[is_int4 ? i / 2 : i]);
    int q = is_int4 ? packed >> (i % 2 * 4) & 0x0f : static_cast<int8_t>(packed);
    if (is_int4 && !shape.has_minimum) q -= 8;
    matrix.values.push_back(static_cast<double>(matrix.scale[group]) * q +
                            (shape.has_minimum ? matrix.minimum[group] : 0.0f));
  }
  return matrix;
}

inline RandomMatrix random_matrix(const MatrixShape& shape, std::mt19937& random) {
  return shape.groups == 0 ? random_float_matrix(shape, random) : random_integer_matrix(shape, random);
}

}  // namespace inflight::test
