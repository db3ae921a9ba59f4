// Norms, activations, embedding, quantization and rotary embedding on a GPU against float64.

#include "device.cuh"
#include "embedding.h"
#include "gated_activation.h"
#include "layer_norm.h"
#include "paged_cache.cuh"
#include "quantize_tokens.h"
#include "rms_norm.h"
#include "rotate_and_cache.h"
#include "tests.h"

namespace inflight::gpu_test {
namespace {

using namespace kernels;

template <class T>
constexpr double kTolerance = std::is_same_v<T, __half> ? 5e-4 : 3e-3;

// Of input, or of the sum that the kernel rounded. One thread a row: slow and plain.
template <class T>
__global__ void reference_norm(const T* x, const float* weight, const float* bias, int rows, int size, bool centers,
                               double* y) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  double mean = 0, square = 0;
  for (int i = 0; i < size; ++i) mean += static_cast<float>(x[size_t{1} * row * size + i]);
  mean = centers ? mean / size : 0;
  for (int i = 0; i < size; ++i) {
    const double d = static_cast<float>(x[size_t{1} * row * size + i]) - mean;
    square += d * d;
  }
  for (int i = 0; i < size; ++i) {
    const double d = static_cast<float>(x[size_t{1} * row * size + i]) - mean;
    y[size_t{1} * row * size + i] = d / sqrt(square / size + 1e-5) * weight[i] + (bias ? bias[i] : 0.0f);
  }
}

template <class T>
__global__ void reference_sum(const T* a, const T* b, size_t size, double* y) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < size; i += size_t{gridDim.x} * blockDim.x) {
    y[i] = static_cast<float>(T(static_cast<float>(a[i]) + static_cast<float>(b[i])));
  }
}

template <class T>
void test_norms(Report& report) {
  for (const int size : {64, 576, 896, 1024, 1536, 2048, 3584, 4096, 5120, 8192, 14336, 16384}) {
    for (const int rows : {1, 3, 259}) {
      for (const bool residual : {false, true}) {
        const std::string what = std::to_string(rows) + " x " + std::to_string(size) + (residual ? " residual" : "");
        const size_t count = size_t{1} * rows * size;
        const auto input = normal<T>(count, 1.0f, size + rows), other = normal<T>(count, 3.0f, size - rows);
        const auto weight = normal<float>(size, 1.0f, 7), bias = normal<float>(size, 1.0f, 8);
        Array<T> output(count), sum(count);
        Array<double> reference(count);
        const auto check_sum = [&](const char* kernel) {
          if (!residual) return;
          reference_sum<<<256, 256>>>(input.get(), other.get(), count, reference.get());
          report.compare(kernel, what + " sum", relative_error(sum.get(), reference), 0);
        };
        const T* normalized = residual ? sum.get() : input.get();
        CHECK_LAUNCH(launch(RmsNorm{.dtype = data_type<T>(),
                                    .add_residual = residual,
                                    .output = output.get(),
                                    .sum_output = residual ? sum.get() : nullptr,
                                    .input = input.get(),
                                    .residual = residual ? other.get() : nullptr,
                                    .weight = weight.get(),
                                    .rows = rows,
                                    .size = size,
                                    .epsilon = 1e-5f},
                            nullptr));
        check_sum("rms_norm");
        reference_norm<<<(rows + 63) / 64, 64>>>(normalized, weight.get(), nullptr, rows, size, false, reference.get());
        report.compare("rms_norm", what, relative_error(output.get(), reference), kTolerance<T>);

        output.poison();
        sum.poison();
        CHECK_LAUNCH(launch(LayerNorm{.dtype = data_type<T>(),
                                      .add_residual = residual,
                                      .add_bias = residual,
                                      .output = output.get(),
                                      .sum_output = residual ? sum.get() : nullptr,
                                      .input = input.get(),
                                      .residual = residual ? other.get() : nullptr,
                                      .weight = weight.get(),
                                      .bias = residual ? bias.get() : nullptr,
                                      .rows = rows,
                                      .size = size,
                                      .epsilon = 1e-5f},
                            nullptr));
        check_sum("layer_norm");
        reference_norm<<<(rows + 63) / 64, 64>>>(normalized, weight.get(), residual ? bias.get() : nullptr, rows, size,
                                                 true, reference.get());
        report.compare("layer_norm", what, relative_error(output.get(), reference), kTolerance<T>);
      }
    }
  }
}

template <class T>
__global__ void reference_activation(const T* x, int rows, int size, int activation, bool gated, double* y) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < rows * size; i += gridDim.x * blockDim.x) {
    const T* row = x + size_t(i / size) * size * (gated ? 2 : 1);
    const double g = static_cast<float>(row[i % size]);
    const double a = activation == 0   ? g / (1 + exp(-g))
                     : activation == 1 ? g * normcdf(g)
                     : activation == 2 ? 0.5 * g * (1 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)))
                                       : fmax(g, 0.0) * fmax(g, 0.0);
    y[i] = gated ? a * static_cast<float>(row[size + i % size]) : a;
  }
}

template <class T>
void test_activations(Report& report) {
  using enum GatedActivationActivation;
  const GatedActivationActivation activations[] = {kSilu, kGeluErf, kGeluTanh, kReluSquared};
  for (const auto [rows, size] : {std::pair{1, 1536}, {5, 1040}, {300, 14336}}) {
    for (const bool gated : {true, false}) {
      for (int i = 0; i < 4; ++i) {
        const size_t count = size_t{1} * rows * size;
        const auto input = normal<T>(count * (gated ? 2 : 1), 3.0f, size + i);
        Array<T> output(count);
        Array<double> reference(count);
        CHECK_LAUNCH(launch(GatedActivation{.dtype = data_type<T>(),
                                            .activation = activations[i],
                                            .gated = gated,
                                            .output = output.get(),
                                            .input = input.get(),
                                            .rows = rows,
                                            .size = size},
                            nullptr));
        reference_activation<<<512, 256>>>(input.get(), rows, size, i, gated, reference.get());
        const std::string what = std::to_string(i) + (gated ? " gated " : " ") + std::to_string(rows);
        report.compare("gated_activation", what, relative_error(output.get(), reference), kTolerance<T>);
      }
    }
  }
}

template <class T>
void test_embedding(Report& report) {
  const int size = 4096, num_ids = 1000, first_id = 500;
  const auto table = normal<T>(size_t{1} * num_ids * size, 1.0f, 5);
  const std::vector<int32_t> ids = {500, 1499, 499, 1500, -1, 0x7fffffff, 777};
  const Array<int32_t> device_ids(ids);
  Array<T> output(ids.size() * size);
  CHECK_LAUNCH(launch(Embedding{.dtype = data_type<T>(),
                                .output = output.get(),
                                .table = table.get(),
                                .ids = device_ids.get(),
                                .tokens = static_cast<int32_t>(ids.size()),
                                .size = size,
                                .first_id = first_id,
                                .num_ids = num_ids,
                                .scale = 1.0f},
                      nullptr));
  const auto rows = table.host();
  std::vector<double> expected(output.size());
  for (size_t t = 0; t < ids.size(); ++t) {
    const int64_t row = int64_t{ids[t]} - first_id;
    for (int i = 0; i < size && row >= 0 && row < num_ids; ++i) expected[t * size + i] = float(rows[row * size + i]);
  }
  report.compare("embedding", "range", relative_error(output.get(), Array<double>(expected)), 0);
}

template <class T, class Q>
__global__ void reference_quantization(const T* x, const Q* quantized, const float* scales, int rows, int size,
                                       double limit, double* scale_errors, double* worst_step) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  double largest = 0, worst = 0;
  for (int i = 0; i < size; ++i) largest = fmax(largest, fabs(double(float(x[size_t{1} * row * size + i]))));
  const double scale = largest > 0 ? largest / limit : 1;
  scale_errors[row] = fabs(scales[row] / scale - 1);
  for (int i = 0; i < size; ++i) {
    const double exact = float(x[size_t{1} * row * size + i]) / scale;
    // Half a step: 1 / 2 of int8, 2^-4 relative of E4M3 with its three bits, and its smallest step of 2^-9.
    const double step = limit == 127 ? 0.5 : fmax(fabs(exact) / 16, 0x1p-10);
    worst = fmax(worst, fabs(double(float(quantized[size_t{1} * row * size + i])) - exact) / step);
  }
  worst_step[row] = worst;
}

template <class T, class Q>
void test_quantization(Report& report) {
  for (const auto [rows, size] : {std::pair{1, 576}, {7, 4096}, {200, 14336}, {3, 28672}}) {
    const auto input = normal<T>(size_t{1} * rows * size, 4.0f, size);
    CHECK_CUDA(cudaMemset(input.get() + size_t(rows - 1) * size, 0, sizeof(T) * size));  // a row of zeros
    Array<Q> output(input.size());
    Array<float> scales(rows);
    CHECK_LAUNCH(launch(QuantizeTokens{.dtype = data_type<T>(),
                                       .quantized = data_type<Q>(),
                                       .output = output.get(),
                                       .scales = scales.get(),
                                       .input = input.get(),
                                       .rows = rows,
                                       .size = size},
                        nullptr));
    Array<double> scale_errors(rows), worst(rows);
    reference_quantization<<<(rows + 63) / 64, 64>>>(input.get(), output.get(), scales.get(), rows, size,
                                                     std::is_same_v<Q, int8_t> ? 127.0 : 448.0, scale_errors.get(),
                                                     worst.get());
    const std::string what = std::to_string(rows) + " x " + std::to_string(size);
    report.compare("quantize_tokens", what + " scale", std::ranges::max(scale_errors.host()), 1e-6);
    report.compare("quantize_tokens", what, std::ranges::max(worst.host()), 1.0 + 1e-4);
  }
}

struct Rotation {
  int query_heads, kv_heads, head_size, rotary_size;
  bool interleaved, normalize;
};

template <class T>
__global__ void reference_rotation(const T* qkv, const float* query_norm, const float* key_norm, const float* cos_sin,
                                   const int32_t* positions, Rotation r, double* rotated) {
  const int heads = r.query_heads + 2 * r.kv_heads, token = blockIdx.x, head = threadIdx.x;
  if (head >= heads) return;
  const T* x = qkv + (size_t{1} * token * heads + head) * r.head_size;
  double* y = rotated + (size_t{1} * token * heads + head) * r.head_size;
  double square = 0;
  for (int i = 0; i < r.head_size; ++i) square += double(float(x[i])) * float(x[i]);
  const bool is_value = head >= r.query_heads + r.kv_heads;
  const float* weight = head < r.query_heads ? query_norm : key_norm;
  for (int i = 0; i < r.head_size; ++i) {
    y[i] = float(x[i]);
    if (r.normalize && !is_value) y[i] *= weight[i] / sqrt(square / r.head_size + 1e-6);
  }
  if (is_value) return;
  const float* angles = cos_sin + size_t{1} * positions[token] * r.rotary_size;
  for (int pair = 0; pair < r.rotary_size / 2; ++pair) {
    const int a = r.interleaved ? 2 * pair : pair, b = r.interleaved ? 2 * pair + 1 : pair + r.rotary_size / 2;
    const double c = angles[pair], s = angles[r.rotary_size / 2 + pair], u = y[a], v = y[b];
    y[a] = u * c - v * s;
    y[b] = v * c + u * s;
  }
}

template <class T, class C>
void test_rotation(Report& report, int head_size, int rotary_size, bool interleaved, bool normalize) {
  const Rotation r{.query_heads = 9,
                   .kv_heads = 3,
                   .head_size = head_size,
                   .rotary_size = rotary_size,
                   .interleaved = interleaved,
                   .normalize = normalize};
  PagedCache<C> cache({70, 5, 129}, r.kv_heads, head_size, 5, 11);
  std::vector<int32_t> positions, sequences;
  for (int sequence = 0; sequence < 3; ++sequence) {
    for (int position = 0; position < cache.lengths_host[sequence]; ++position) {
      positions.push_back(position);
      sequences.push_back(sequence);
    }
  }
  const int tokens = static_cast<int>(positions.size()), heads = r.query_heads + 2 * r.kv_heads;
  const auto qkv = normal<T>(size_t{1} * tokens * heads * head_size, 1.0f, head_size);
  const auto query_norm = normal<float>(head_size, 1.0f, 3), key_norm = normal<float>(head_size, 1.0f, 4);
  const auto cos_sin = normal<float>(size_t{256} * std::max(rotary_size, 1), 1.0f, 9);
  const Array<int32_t> device_positions(positions), device_sequences(sequences);
  Array<T> queries(size_t{1} * tokens * r.query_heads * head_size);
  cache.keys.poison();
  cache.values.poison();
  const float key_scale = std::is_same_v<T, C> ? 1.0f : 0.5f;
  CHECK_LAUNCH(launch(RotateAndCache{.dtype = data_type<T>(),
                                     .cache = data_type<C>(),
                                     .head_size = head_size,
                                     .interleaved = interleaved,
                                     .normalize = normalize,
                                     .queries = queries.get(),
                                     .key_cache = cache.keys.get(),
                                     .value_cache = cache.values.get(),
                                     .qkv = qkv.get(),
                                     .query_norm = normalize ? query_norm.get() : nullptr,
                                     .key_norm = normalize ? key_norm.get() : nullptr,
                                     .cos_sin = cos_sin.get(),
                                     .positions = device_positions.get(),
                                     .sequences = device_sequences.get(),
                                     .block_table = cache.table.get(),
                                     .table_stride = cache.table_stride,
                                     .block_stride = cache.block_stride(),
                                     .token_stride = cache.token_stride(),
                                     .head_stride = head_size,
                                     .block_shift = cache.block_shift,
                                     .tokens = tokens,
                                     .query_heads = r.query_heads,
                                     .kv_heads = r.kv_heads,
                                     .rotary_size = rotary_size,
                                     .epsilon = 1e-6f,
                                     .key_scale = key_scale,
                                     .value_scale = 1.0f},
                      nullptr));
  Array<double> rotated(qkv.size());
  reference_rotation<<<tokens, 32>>>(qkv.get(), query_norm.get(), key_norm.get(), cos_sin.get(), device_positions.get(),
                                     r, rotated.get());
  CHECK_CUDA(cudaDeviceSynchronize());
  const auto expected = rotated.host();
  const auto table = cache.table.host();
  const auto keys = cache.keys.host(), values = cache.values.host();
  std::vector<double> expected_queries, expected_keys, expected_values;
  std::vector<C> written_keys, written_values;
  for (int t = 0; t < tokens; ++t) {
    const double* row = &expected[size_t{1} * t * heads * head_size];
    expected_queries.insert(expected_queries.end(), row, row + r.query_heads * head_size);
    const double* k = row + r.query_heads * head_size;
    const int n = r.kv_heads * head_size;
    for (int i = 0; i < n; ++i) expected_keys.push_back(k[i] / key_scale);
    expected_values.insert(expected_values.end(), k + n, k + 2 * n);
    const size_t block = table[sequences[t] * cache.table_stride + (positions[t] >> cache.block_shift)];
    const size_t at =
        block * cache.block_stride() + (positions[t] & ((1 << cache.block_shift) - 1)) * cache.token_stride();
    written_keys.insert(written_keys.end(), &keys[at], &keys[at] + n);
    written_values.insert(written_values.end(), &values[at], &values[at] + n);
  }
  const std::string what = std::to_string(head_size) + " turns " + std::to_string(rotary_size) +
                           (interleaved ? " interleaved" : "") + (normalize ? " normalize" : "");
  const double cached = std::is_same_v<T, C> ? kTolerance<T> : 0.03;
  report.compare("rotate_and_cache", what + " q", relative_error(queries.get(), Array<double>(expected_queries)),
                 kTolerance<T>);
  report.compare("rotate_and_cache", what + " k",
                 relative_error(Array<C>(written_keys).get(), Array<double>(expected_keys)), cached);
  report.compare("rotate_and_cache", what + " v",
                 relative_error(Array<C>(written_values).get(), Array<double>(expected_values)),
                 std::is_same_v<T, C> ? 0 : 0.03);
}

template <class T>
void test_rotations(Report& report) {
  for (const auto [head_size, rotary_size] :
       {std::pair{64, 64}, {64, 16}, {80, 32}, {80, 80}, {96, 96}, {128, 128}, {128, 64}, {256, 256}, {128, 0}}) {
    for (const bool interleaved : {false, true}) {
      for (const bool normalize : {false, true}) {
        test_rotation<T, T>(report, head_size, rotary_size, interleaved, normalize);
        test_rotation<T, __nv_fp8_e4m3>(report, head_size, rotary_size, interleaved, normalize);
      }
    }
  }
}

template <class T>
void test_dtype(Report& report) {
  test_norms<T>(report);
  test_activations<T>(report);
  test_embedding<T>(report);
  test_quantization<T, int8_t>(report);
  test_quantization<T, __nv_fp8_e4m3>(report);
  test_rotations<T>(report);
}

}  // namespace

void test_elementwise(Report& report) {
  test_dtype<__nv_bfloat16>(report);
  test_dtype<__half>(report);
}

}  // namespace inflight::gpu_test
