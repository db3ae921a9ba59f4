#include "engine/cpu/kernels/linear.h"

#include <cstdlib>
#include <cstring>
#include <limits>

#include "check.h"
#include "random_matrix.h"

using namespace inflight;
using namespace inflight::cpu;
using test::MatrixShape;
using test::RandomMatrix;

namespace {

constexpr auto kF32 = WeightType::kFloat32;
constexpr auto kBF16 = WeightType::kBFloat16;
constexpr auto kF16 = WeightType::kFloat16;
constexpr auto kInt8 = WeightType::kInt8;
constexpr auto kInt4 = WeightType::kInt4;

constexpr auto kExact = Precision::kExact;
constexpr auto kRounded = Precision::kRounded;

constexpr double kBFloat16Rounding = 1.0 / 256;  // the most that it changes a value, relative to it
constexpr int64_t kTokenCounts[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 33, 65, 130};

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : kIsas) {
    if (supports(isa)) isas.push_back(isa);
  }
  return isas;
}

// Shapes that kernels have special paths for, and random odd ones.
std::vector<MatrixShape> shapes() {
  std::vector<MatrixShape> all;
  for (const auto type : {kF32, kBF16, kF16}) {
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {16, 8}, {64, 96}, {65, 33}, {150, 1100}}) {
      all.push_back({type, rows, columns});
    }
  }
  for (const auto type : {kInt8, kInt4}) {
    for (const bool has_minimum : {false, true}) {
      if (type == kInt8 && has_minimum) continue;
      for (const bool half : {false, true}) {
        for (const auto& [rows, columns, groups] : {std::array<int64_t, 3>{16, 32, 1},
                                                    {64, 64, 2},
                                                    {80, 96, 6},
                                                    {48, 576, 18},
                                                    {33, 256, 4},
                                                    {35, 256, 2},
                                                    {17, 100, 1},
                                                    {1, 70, 7},
                                                    {50, 48, 1},
                                                    {31, 12, 6},
                                                    {129, 1536, 1},
                                                    {2, 2, 1},
                                                    {33, 2048, 64},
                                                    {34, 2048, 16},
                                                    {70, 80, 2}}) {
          all.push_back({type, rows, columns, groups, has_minimum, half});
        }
      }
    }
  }
  std::mt19937 random(11);
  for (int i = 0; i < 60; ++i) {
    const auto type = std::array{kF32, kBF16, kF16, kInt8, kInt4}[random() % 5];
    MatrixShape shape{type, int64_t(1 + random() % 120), 1, 0};
    if (type == kInt8 || type == kInt4) {
      shape.groups = 1 + random() % 9;
      shape.has_minimum = type == kInt4 && random() % 2;
      shape.half_scales = random() % 2;
      shape.columns = shape.groups * (1 + random() % 80) * (type == kInt4 ? 2 : 1);
    } else {
      shape.columns = 1 + random() % 300;
    }
    all.push_back(shape);
  }
  return all;
}

std::vector<float> random_values(int64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (auto& value : values) value = normal(random);
  return values;
}

// What the kernels of integer weights see instead of x: quantized by segments and put back.
std::vector<double> seen_by_integers(const PackedLayout& layout, const float* x) {
  std::vector<double> seen(layout.columns);
  const int64_t group_columns = layout.columns / layout.groups;
  for (int64_t k = 0; k < layout.columns;) {
    const int64_t left = group_columns - k % group_columns;
    const int64_t columns = std::min(left, layout.segment_columns);
    float absmax = 0.0f;
    for (int64_t i = k; i < k + columns; ++i) absmax = std::max(absmax, std::abs(x[i]));
    for (int64_t i = k; i < k + columns && absmax >= 1e-36f; ++i) {
      seen[i] = std::nearbyint(x[i] * (127.0f / absmax)) * static_cast<double>(absmax / 127.0f);
    }
    k += columns;
  }
  return seen;
}

struct Product {
  std::vector<double> values;      // [tokens, rows]
  std::vector<double> magnitudes;  // Σ |w · x|: what rounding errors are relative to
};

// The most that rounding x to 127 steps on each side can change a product: half a step of each column.
std::vector<double> quantization_errors(const RandomMatrix& matrix, const std::vector<float>& x, int64_t tokens) {
  const auto& [type, rows, columns, groups, has_minimum, half] = matrix.shape;
  std::vector<double> errors;
  for (int64_t t = 0; t < tokens; ++t) {
    double absmax = 0;
    for (int64_t k = 0; k < columns; ++k) absmax = std::max<double>(absmax, std::abs(x[t * columns + k]));
    for (int64_t r = 0; r < rows; ++r) {
      double weight_sum = 0;
      for (int64_t k = 0; k < columns; ++k) weight_sum += std::abs(matrix.values[r * columns + k]);
      errors.push_back(weight_sum * absmax / 254);
    }
  }
  return errors;
}

// quantized_for: the layout by which x is quantized before; null → as it is.
Product reference(const RandomMatrix& matrix, const std::vector<float>& x, int64_t tokens,
                  const PackedLayout* quantized_for) {
  const auto& [type, rows, columns, groups, has_minimum, half] = matrix.shape;
  Product product;
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<double> row(x.begin() + t * columns, x.begin() + (t + 1) * columns);
    if (quantized_for != nullptr) row = seen_by_integers(*quantized_for, x.data() + t * columns);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < columns; ++k) {
        sum += matrix.values[r * columns + k] * row[k];
        magnitude += std::abs(matrix.values[r * columns + k] * row[k]);
      }
      product.values.push_back(sum);
      product.magnitudes.push_back(magnitude);
    }
  }
  return product;
}

std::vector<float> multiply(std::span<const std::byte> blob, const std::vector<float>& x, int64_t tokens, Isa isa,
                            ThreadPool& pool, const float* bias = nullptr, Precision precision = kExact) {
  const PackedMatrix packed(blob, "weight");
  LinearInput input(tokens, packed.columns());
  input.set(x.data(), tokens, packed.columns(), packed.columns());
  std::vector<float> y(tokens * packed.rows(), NAN);
  linear(packed, input, {.rows = y.data(), .row_stride = packed.rows(), .bias = bias}, pool, isa, precision);
  return y;
}

// The most that rounding int4 weights to int8 in units of their row can change a product: of each column half a unit,
// and a little, as the unit's sixteenths are rounded too.
std::vector<double> requantization_errors(const RandomMatrix& matrix, const std::vector<float>& x, int64_t tokens) {
  const MatrixSource source = matrix.source();
  std::vector<double> errors;
  for (int64_t t = 0; t < tokens; ++t) {
    double magnitude = 0;
    for (int64_t k = 0; k < source.columns; ++k) magnitude += std::abs(x[t * source.columns + k]);
    for (int64_t r = 0; r < source.rows; ++r) {
      double largest = 0;
      for (int64_t i = r * source.groups; i < (r + 1) * source.groups; ++i) {
        const double least = source.minimum != nullptr ? source.minimum[i] : -8.0 * source.scale[i];
        largest = std::max({largest, std::abs(least), std::abs(least + 15.0 * source.scale[i])});
      }
      errors.push_back(magnitude * largest / 126 * 0.54);
    }
  }
  return errors;
}

void check_close(const std::vector<float>& y, const Product& expected, double tolerance) {
  CHECK_EQ(y.size(), expected.values.size());
  for (size_t i = 0; i < y.size(); ++i) {
    if (!(std::abs(y[i] - expected.values[i]) <= tolerance * expected.magnitudes[i] + 1e-30)) {
      test::fail(__FILE__, __LINE__, concat("element ", i, ": ", y[i], " instead of ", expected.values[i]));
    }
  }
}

}  // namespace

TEST(products_equal_the_reference_for_every_type_shape_and_isa) {
  std::mt19937 random(21);
  ThreadPool pool(2);
  for (const MatrixShape& shape : shapes()) {
    const auto matrix = test::random_matrix(shape, random);
    const auto blob = pack_matrix(matrix.source());
    const PackedLayout layout = PackedMatrix(blob, "weight").layout();
    const bool integer = shape.groups != 0;
    for (const int64_t tokens : kTokenCounts) {
      if (tokens > 16 && shape.rows * shape.columns > 20000) continue;
      const auto x = random_values(tokens * shape.columns, random);
      const auto expected = reference(matrix, x, tokens, integer ? &layout : nullptr);
      auto unquantized = reference(matrix, x, tokens, nullptr);
      if (integer) unquantized.magnitudes = quantization_errors(matrix, x, tokens);
      for (const Isa isa : available_isas()) {
        const auto y = multiply(blob, x, tokens, isa, pool);
        check_close(y, expected, 2e-6);
        check_close(y, unquantized, integer ? 1.001 : 2e-6);
        const auto y_rounded = multiply(blob, x, tokens, isa, pool, nullptr, kRounded);
        if (input_form(layout, kRounded, isa) == InputForm::kTiles) {
          check_close(y_rounded, reference(matrix, x, tokens, nullptr), 2.01 * kBFloat16Rounding);
        } else if (shape.type == kInt4) {
          auto requantized = expected;
          requantized.magnitudes = requantization_errors(matrix, x, tokens);
          check_close(y_rounded, requantized, 1.03);
        } else {
          CHECK(y_rounded == y);
        }
      }
    }
  }
}

TEST(bias_accumulation_and_strides_are_honored) {
  std::mt19937 random(22);
  ThreadPool pool(2);
  for (const MatrixShape& shape : {MatrixShape{kF32, 35, 50},
                                   {kBF16, 35, 64},
                                   {kF16, 35, 50},
                                   {kInt8, 35, 64, 2},
                                   {kInt4, 35, 64, 2, true},
                                   {kInt4, 35, 64, 1}}) {
    const auto matrix = test::random_matrix(shape, random);
    const auto blob = pack_matrix(matrix.source());
    const PackedMatrix packed(blob, "weight");
    const auto bias = random_values(shape.rows, random);
    for (const int64_t tokens : {1, 7, 70}) {
      const int64_t x_stride = shape.columns + 3, y_stride = shape.rows + 5;
      const auto x = random_values(tokens * x_stride, random);
      std::vector<float> dense_x;
      for (int64_t t = 0; t < tokens; ++t) {
        dense_x.insert(dense_x.end(), x.begin() + t * x_stride, x.begin() + t * x_stride + shape.columns);
      }
      for (const Isa isa : available_isas()) {
        for (const int option : {0, 1, 2, 3}) {
          const bool accumulate = option % 2;
          const auto precision = option / 2 ? kRounded : kExact;
          const auto plain = multiply(blob, dense_x, tokens, isa, pool, nullptr, precision);
          LinearInput input(tokens, shape.columns);
          input.set(x.data(), tokens, shape.columns, x_stride);
          const auto before = random_values(tokens * y_stride, random);
          auto y = before;
          linear(packed, input,
                 {.rows = y.data(), .row_stride = y_stride, .bias = bias.data(), .accumulate = accumulate}, pool, isa,
                 precision);
          for (int64_t t = 0; t < tokens; ++t) {
            for (int64_t r = 0; r < y_stride; ++r) {
              const float old = before[t * y_stride + r];
              if (r >= shape.rows) {
                CHECK_EQ(y[t * y_stride + r], old);
                continue;
              }
              const float expected = plain[t * shape.rows + r] + bias[r] + (accumulate ? old : 0.0f);
              CHECK(std::abs(y[t * y_stride + r] - expected) < 1e-4f);
            }
          }
        }
      }
    }
  }
}

TEST(a_token_gets_the_same_output_in_any_batch_at_any_thread_count) {
  std::mt19937 random(23);
  ThreadPool one(1), three(3);
  constexpr int64_t kBatch = 150;  // more than the kernels take at a time
  for (const MatrixShape& shape : {MatrixShape{kF32, 200, 300},
                                   {kBF16, 200, 300},
                                   {kBF16, 200, 1600},
                                   {kInt8, 200, 320, 10},
                                   {kInt8, 200, 2000, 1},
                                   {kInt4, 200, 320, 10, true, true},
                                   {kInt4, 40, 1600, 50, true, true},
                                   {kInt4, 200, 300, 3}}) {
    const auto matrix = test::random_matrix(shape, random);
    const auto blob = pack_matrix(matrix.source());
    const auto x = random_values(kBatch * shape.columns, random);
    for (const Isa isa : available_isas()) {
      for (const Precision precision : {kExact, kRounded}) {
        const auto batch = multiply(blob, x, kBatch, isa, three, nullptr, precision);
        CHECK(batch == multiply(blob, x, kBatch, isa, one, nullptr, precision));
        for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 13, 130}) {
          const auto some = multiply(blob, x, tokens, isa, one, nullptr, precision);
          CHECK(std::equal(some.begin(), some.end(), batch.begin()));
        }
      }
    }
  }
}

TEST(gate_and_up_become_the_input_of_the_next_layer) {
  std::mt19937 random(30);
  ThreadPool pool(2);
  constexpr int64_t kHidden = 1056, kIntermediate = 160;
  for (const auto type : {kBF16, kInt8, kInt4}) {
    const int64_t groups = type == kBF16 ? 0 : 33;
    const bool is_int4 = type == kInt4;
    const auto gate_up = test::random_matrix({type, 2 * kIntermediate, kHidden, groups, is_int4, is_int4}, random);
    const auto down = test::random_matrix({type, 40, kIntermediate, type == kBF16 ? 0 : 5}, random);
    const auto gate_up_blob = pack_matrix(gate_up.source()), down_blob = pack_matrix(down.source());
    const PackedMatrix packed_gate_up(gate_up_blob, "gate_up"), packed_down(down_blob, "down");
    const auto bias = random_values(2 * kIntermediate, random);
    for (const Isa isa : available_isas()) {
      if (!has_linear_silu_and_multiply(packed_gate_up.layout(), packed_down.layout(), kRounded, isa)) continue;
      for (const int64_t tokens : {1, 16, 33, 300}) {
        const auto x = random_values(tokens * kHidden, random);
        const auto rows = multiply(gate_up_blob, x, tokens, isa, pool, bias.data(), kRounded);
        std::vector<float> activated;
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t i = 0; i < kIntermediate; ++i) {
            const float gate = rows[t * 2 * kIntermediate + i], up = rows[t * 2 * kIntermediate + kIntermediate + i];
            activated.push_back(gate / (1.0f + std::exp(-gate)) * up);
          }
        }
        LinearInput input(tokens, kHidden), next(tokens, kIntermediate);
        input.set(x.data(), tokens, kHidden, kHidden);
        next.set(nullptr, tokens, kIntermediate, kIntermediate);
        linear_silu_and_multiply(packed_gate_up, bias.data(), input, packed_down.layout(), next, pool, isa);
        std::vector<float> y(tokens * 40);
        linear(packed_down, next, {.rows = y.data(), .row_stride = 40}, pool, isa, kRounded);
        check_close(y, reference(down, activated, tokens, nullptr), 2.02 * kBFloat16Rounding);
      }
    }
  }
}

TEST(a_blob_may_lie_at_any_address) {
  std::mt19937 random(24);
  ThreadPool pool(1);
  for (const MatrixShape& shape :
       {MatrixShape{kF32, 40, 60}, {kBF16, 40, 60}, {kF16, 40, 60}, {kInt8, 40, 64, 2}, {kInt4, 40, 64, 2, true}}) {
    const auto matrix = test::random_matrix(shape, random);
    const auto blob = pack_matrix(matrix.source());
    const auto x = random_values(9 * shape.columns, random);
    for (const Isa isa : available_isas()) {
      const auto expected = multiply(blob, x, 9, isa, pool);
      for (const size_t shift : {1, 2, 8, 33}) {
        std::vector<std::byte> copy(blob.size() + shift);
        std::memcpy(copy.data() + shift, blob.data(), blob.size());
        CHECK(multiply(std::span(copy).subspan(shift), x, 9, isa, pool) == expected);
      }
    }
  }
}

TEST(extreme_activations_are_quantized_soundly) {
  std::mt19937 random(25);
  ThreadPool pool(1);
  const MatrixShape shape{kInt8, 20, 128, 4};
  const auto matrix = test::random_matrix(shape, random);
  const auto blob = pack_matrix(matrix.source());
  const PackedLayout layout = PackedMatrix(blob, "weight").layout();
  std::vector<float> x(128, 0.0f);
  for (int i = 0; i < 32; ++i) {
    x[32 + i] = i % 2 == 0 ? 1e30f : -1e30f;
    x[64 + i] = 1e-30f * static_cast<float>(i);
    x[96 + i] = 1e-40f * static_cast<float>(i);  // subnormal: taken as zero
  }
  for (const Isa isa : available_isas()) {
    check_close(multiply(blob, x, 1, isa, pool), reference(matrix, x, 1, &layout), 1e-6);

    std::vector<float> zeros(128, 0.0f);
    for (const float y : multiply(blob, zeros, 1, isa, pool)) CHECK_EQ(y, 0.0f);
    zeros[96] = 1e-42f;
    for (const float y : multiply(blob, zeros, 1, isa, pool)) CHECK_EQ(y, 0.0f);
  }
}

TEST(extreme_weights_do_not_saturate) {
  ThreadPool pool(1);
  for (const int8_t q : {int8_t{-128}, int8_t{127}}) {
    const std::vector<int8_t> data(16 * 64, q);
    const std::vector<float> scale(16 * 2, 1.0f);
    const auto blob = pack_matrix(
        {.type = kInt8, .rows = 16, .columns = 64, .groups = 2, .data = data.data(), .scale = scale.data()});
    for (const float sign : {1.0f, -1.0f}) {
      const std::vector<float> x(64, 127.0f * sign);
      for (const Isa isa : available_isas()) {
        for (const float y : multiply(blob, x, 1, isa, pool)) CHECK_EQ(y, 64 * 127.0f * sign * q);
      }
    }
  }
}

TEST(extreme_int4_weights_are_rounded_soundly) {
  ThreadPool pool(1);
  const std::vector<uint8_t> data(16 * 32, 0xf0);  // 0, 15, 0, 15, …
  std::vector<float> scale, minimum;               // per row
  for (int r = 0; r < 16; ++r) {
    const float magnitudes[] = {0.0f, 1e-42f, 1e-30f, 1.0f, 1e30f, NAN, INFINITY, -INFINITY};
    scale.push_back(magnitudes[r % 8]);
    minimum.push_back(r < 8 ? 0.0f : -magnitudes[r % 8] * 15.0f);
  }
  const auto blob = pack_matrix({.type = kInt4,
                                 .rows = 16,
                                 .columns = 64,
                                 .groups = 1,
                                 .data = data.data(),
                                 .scale = scale.data(),
                                 .minimum = minimum.data()});
  const std::vector<float> x(64, 1.0f);
  for (const Isa isa : available_isas()) {
    const auto y = multiply(blob, x, 1, isa, pool, nullptr, kRounded);
    for (int r = 0; r < 16; ++r) {
      const double expected = 32.0 * 15 * scale[r] + 64.0 * minimum[r];
      CHECK(std::isfinite(scale[r]) ? std::abs(y[r] - expected) <= 0.01 * std::abs(expected) + 1e-38
                                    : !std::isfinite(y[r]));
    }
  }
}

TEST(what_is_not_finite_does_not_disappear) {
  std::mt19937 random(26);
  ThreadPool pool(1);
  for (const MatrixShape& shape :
       {MatrixShape{kF32, 20, 64}, {kBF16, 20, 64}, {kInt8, 20, 64, 2}, {kInt4, 20, 64, 2, true}}) {
    const auto blob = pack_matrix(test::random_matrix(shape, random).source());
    for (const float value : {NAN, INFINITY, -INFINITY, -NAN}) {
      for (const int64_t position : {0, 17, 63}) {
        auto x = random_values(2 * 64, random);
        x[position] = value;
        for (const Isa isa : available_isas()) {
          for (const Precision precision : {kExact, kRounded}) {
            const auto y = multiply(blob, x, 2, isa, pool, nullptr, precision);
            for (int r = 0; r < 20; ++r) CHECK(!std::isfinite(y[r]) && std::isfinite(y[20 + r]));
          }
        }
      }
    }
  }
}

TEST(one_input_serves_matrices_of_different_groups) {
  std::mt19937 random(27);
  ThreadPool pool(2);
  const auto x = random_values(5 * 192, random);
  for (const Isa isa : available_isas()) {
    LinearInput input(5, 192);
    input.set(x.data(), 5, 192, 192);
    for (const int64_t groups : {6, 1, 12, 2, 24, 4, 192, 6}) {
      const auto matrix = test::random_matrix({kInt8, 30, 192, groups}, random);
      const auto blob = pack_matrix(matrix.source());
      const PackedMatrix packed(blob, "weight");
      std::vector<float> y(5 * 30);
      linear(packed, input, {.rows = y.data(), .row_stride = 30}, pool, isa);
      check_close(y, reference(matrix, x, 5, &packed.layout()), 2e-6);
    }
  }
}

TEST(a_new_input_is_quantized_anew) {
  std::mt19937 random(28);
  ThreadPool pool(1);
  const auto matrix = test::random_matrix({kInt4, 30, 64, 2}, random);
  const auto blob = pack_matrix(matrix.source());
  const PackedMatrix packed(blob, "weight");
  LinearInput input(4, 64);
  for (const int64_t tokens : {4, 1, 3}) {
    const auto x = random_values(tokens * 64, random);
    input.set(x.data(), tokens, 64, 64);
    std::vector<float> y(tokens * 30);
    linear(packed, input, {.rows = y.data(), .row_stride = 30}, pool, available_isas().back());
    check_close(y, reference(matrix, x, tokens, &packed.layout()), 2e-6);
  }
}

TEST(no_tokens_are_no_work) {
  std::mt19937 random(29);
  ThreadPool pool(2);
  for (const MatrixShape& shape : {MatrixShape{kF32, 30, 64}, {kInt8, 30, 64, 2}}) {
    const auto blob = pack_matrix(test::random_matrix(shape, random).source());
    for (const Isa isa : available_isas()) CHECK(multiply(blob, {}, 0, isa, pool).empty());
  }
}

TEST(the_environment_chooses_the_instruction_set) {
  const auto invalid = ErrorCode::kInvalidArgument;
  unsetenv("INFLIGHT_CPU_ISA");
  CHECK(select_isa() == available_isas().back());
  setenv("INFLIGHT_CPU_ISA", "", 1);
  CHECK(select_isa() == available_isas().back());
  for (const Isa isa : kIsas) {
    setenv("INFLIGHT_CPU_ISA", isa_name(isa), 1);
    if (supports(isa)) {
      CHECK(select_isa() == isa);
    } else {
      CHECK_ERROR(select_isa(), invalid, "this machine lacks");
    }
  }
  setenv("INFLIGHT_CPU_ISA", "sse9", 1);
  CHECK_ERROR(select_isa(), invalid, "INFLIGHT_CPU_ISA is \"sse9\"; it must be");
  unsetenv("INFLIGHT_CPU_ISA");
}

TEST_MAIN()
