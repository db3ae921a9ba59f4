// Products on a GPU, in every way that there is for a shape, against float64.

#include "device.cuh"
#include "engine/tensorrt/gemm/gemm.h"
#include "engine/tensorrt/gemm/skinny_gemm.h"
#include "tests.h"
#include "weight_only_gemm.h"

namespace inflight::gpu_test {
namespace {

using namespace gpu;

template <class T>
constexpr GemmType gemm_type() {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return GemmType::kBFloat16;
  if constexpr (std::is_same_v<T, __half>) return GemmType::kFloat16;
  if constexpr (std::is_same_v<T, __nv_fp8_e4m3>) return GemmType::kFloat8E4M3;
}

template <class T>
__global__ void reference_product(const T* x, const T* w, double scale, int rows, int columns, int depth, double* y) {
  const int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
  if (column >= columns) return;
  double sum = 0;
  for (int k = 0; k < depth; ++k) {
    sum += double(float(x[size_t{1} * row * depth + k])) * double(float(w[size_t{1} * column * depth + k]));
  }
  y[size_t{1} * row * columns + column] = sum * scale;
}

template <class T>
__global__ void reference_epilogue(const double* product, const T* residual, GemmEpilogue epilogue, int rows,
                                   int columns, double* y) {
  const int width = epilogue == GemmEpilogue::kSwiGlu ? columns / 2 : columns;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < rows * width; i += gridDim.x * blockDim.x) {
    const double* row = product + size_t(i / width) * columns;
    const double v = row[i % width];
    y[i] = epilogue == GemmEpilogue::kStore         ? v
           : epilogue == GemmEpilogue::kAddResidual ? v + double(float(residual[i]))
                                                    : v / (1 + exp(-v)) * row[width + i % width];
  }
}

template <class T, class Y>
void test_shape(Report& report, const GemmShape& shape, const std::vector<int32_t>& all_rows) {
  const int32_t most = *std::ranges::max_element(all_rows);
  constexpr bool kIsE4M3 = std::is_same_v<T, __nv_fp8_e4m3>;
  const float spread = kIsE4M3 ? 16.0f : 1.0f / std::sqrt(static_cast<float>(shape.depth));
  const Array<float> input_scale(std::vector<float>{0.5f});
  const Array<float> weight_scale(std::vector<float>{1 / 16.0f / std::sqrt(static_cast<float>(shape.depth))});
  const double scale = kIsE4M3 ? 0.5 / 16 / std::sqrt(static_cast<float>(shape.depth)) : 1;
  const auto weight = normal<T>(size_t{1} * shape.columns * shape.depth, spread, shape.depth + 1);
  Array<char> workspace(workspace_bytes(shape, most));
  Array<char> counters(counter_bytes(shape));
  CHECK_CUDA(cudaMemset(counters.get(), 0, counters.size()));
  for (const int32_t rows : all_rows) {
    const auto input = normal<T>(size_t{1} * rows * shape.depth, kIsE4M3 ? 2.0f : 1.0f, shape.columns + rows);
    const size_t size = size_t{1} * rows * shape.output_columns();
    const auto residual = normal<Y>(size, 1.0f, rows);
    Array<double> product(size_t{1} * rows * shape.columns), reference(size);
    reference_product<<<dim3((shape.columns + 127) / 128, rows), 128>>>(input.get(), weight.get(), scale, rows,
                                                                        shape.columns, shape.depth, product.get());
    reference_epilogue<<<512, 256>>>(product.get(), residual.get(), shape.epilogue, rows, shape.columns,
                                     reference.get());
    CHECK_CUDA(cudaDeviceSynchronize());
    std::vector<std::pair<const char*, GemmTactic>> ways{{"gemm cublaslt", {rows, GemmMethod::kCublasLt, {}, 0}}};
    if (!kIsE4M3 && fits_skinny_gemm(rows, shape.columns, shape.depth)) {
      ways.push_back({"gemm skinny", {rows, GemmMethod::kSkinny, {}, 0}});
    }
    if (!kIsE4M3 && shape.epilogue != GemmEpilogue::kSwiGlu && rows <= 64 && shape.columns % 64 == 0 &&
        shape.depth % 128 == 0) {
      for (const uint64_t splits : {1, 2, 8}) ways.push_back({"gemm split", {rows, GemmMethod::kSplit, {splits}, 0}});
    }
    for (const auto& [name, tactic] : ways) {
      for (int repetition = 0; repetition < 2; ++repetition) {  // the second one with the counters that the first left
        Array<Y> output(size);
        const GemmArguments arguments{
            .output = output.get(),
            .input = input.get(),
            .weight = weight.get(),
            .residual = shape.epilogue == GemmEpilogue::kAddResidual ? residual.get() : nullptr,
            .input_scale = kIsE4M3 ? input_scale.get() : nullptr,
            .weight_scale = kIsE4M3 ? weight_scale.get() : nullptr,
            .workspace = workspace.get(),
            .counters = counters.get(),
            .rows = rows};
        const bool chosen = tactic.method != GemmMethod::kCublasLt;
        CHECK_LAUNCH(enqueue(shape, chosen ? &tactic : nullptr, arguments, nullptr));
        report.compare(kIsE4M3 ? "gemm cublaslt e4m3" : name, to_string(shape) + " of " + std::to_string(rows),
                       relative_error(output.get(), reference), std::is_same_v<Y, __half> ? 1e-3 : 6e-3);
      }
    }
  }
}

template <class T, class Y>
void test_type(Report& report) {
  using enum GemmEpilogue;
  const GemmType x = gemm_type<T>(), y = gemm_type<Y>();
  for (const GemmEpilogue epilogue : {kStore, kAddResidual, kSwiGlu}) {
    test_shape<T, Y>(report, {x, y, epilogue, 1536, 576}, {1, 2, 7, 8, 9, 16, 17, 100});
    test_shape<T, Y>(report, {x, y, epilogue, 4096, 4096}, {1, 5, 8, 16, 33, 64});
    test_shape<T, Y>(report, {x, y, epilogue, 4096, 14336}, {1, 8, 12, 32});
    test_shape<T, Y>(report, {x, y, epilogue, 256, 6144}, {1, 2, 3, 4, 5, 6, 7, 8});  // every size of shared memory
    test_shape<T, Y>(report, {x, y, epilogue, 512, 11008}, {3, 16, 64});  // 172 chunks of the depth
    test_shape<T, Y>(report, {x, y, epilogue, 288, 13504}, {4, 11});  // 211, a prime
  }
  test_shape<T, Y>(report, {x, y, kSwiGlu, 28672, 4096}, {1, 8, 40});
  test_shape<T, Y>(report, {x, y, kStore, 128256, 4096}, {8});
}

__global__ void dequantize(const int8_t* q, const float* scale, const float* minimum, bool is_int4, int columns,
                           int depth, int groups, double* w) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < size_t(columns) * depth;
       i += size_t{gridDim.x} * blockDim.x) {
    const size_t column = i / depth, k = i % depth, group = column * groups + k / (depth / groups);
    const int byte = is_int4 ? static_cast<uint8_t>(q[i / 2]) : 0;
    const int value = is_int4 ? (k % 2 ? byte >> 4 : byte & 15) : q[i];
    w[i] =
        minimum ? double(scale[group]) * value + double(minimum[group]) : double(scale[group]) * (value - is_int4 * 8);
  }
}

template <class T>
__global__ void reference_weight_only(const T* x, const double* w, const T* residual, int rows, int columns, int depth,
                                      double* y) {
  const int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
  if (column >= columns) return;
  double sum = residual ? double(float(residual[size_t{1} * row * columns + column])) : 0;
  for (int k = 0; k < depth; ++k)
    sum += double(float(x[size_t{1} * row * depth + k])) * w[size_t{1} * column * depth + k];
  y[size_t{1} * row * columns + column] = sum;
}

template <class T>
void test_weight_only(Report& report) {
  struct Case {
    int rows, columns, depth, groups;
    bool is_int4, has_minimum, residual;
  };
  for (const Case& c : {Case{1, 1536, 576, 1, false, false, true},
                        {17, 1000, 576, 18, false, false, false},
                        {300, 512, 2048, 64, false, false, true},
                        {1, 576, 1536, 48, true, false, false},
                        {8, 1000, 4096, 128, true, true, true},
                        {33, 512, 576, 36, true, false, true},
                        {129, 640, 1024, 8, true, true, false}}) {
    std::vector<int8_t> bytes(size_t{1} * c.columns * c.depth / (c.is_int4 ? 2 : 1));
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<int8_t>(mixed(i + c.rows));
    const Array<int8_t> q(bytes);
    const size_t groups = size_t{1} * c.columns * c.groups, size = size_t{1} * c.rows * c.columns;
    const auto scale = normal<float>(groups, c.is_int4 ? 0.02f : 0.001f, 1), minimum = normal<float>(groups, 0.05f, 2);
    const auto input = normal<T>(size_t{1} * c.rows * c.depth, 1.0f, c.depth), residual = normal<T>(size, 1.0f, 3);
    Array<double> w(size_t{1} * c.columns * c.depth), reference(size);
    Array<T> output(size);
    dequantize<<<512, 256>>>(q.get(), scale.get(), c.has_minimum ? minimum.get() : nullptr, c.is_int4, c.columns,
                             c.depth, c.groups, w.get());
    reference_weight_only<<<dim3((c.columns + 127) / 128, c.rows), 128>>>(
        input.get(), w.get(), c.residual ? residual.get() : nullptr, c.rows, c.columns, c.depth, reference.get());
    CHECK_LAUNCH(launch(kernels::WeightOnlyGemm{.dtype = data_type<T>(),
                                                .values = c.is_int4 ? kernels::WeightOnlyGemmValues::kInt4
                                                                    : kernels::WeightOnlyGemmValues::kInt8,
                                                .has_minimum = c.has_minimum,
                                                .add_residual = c.residual,
                                                .output = output.get(),
                                                .input = input.get(),
                                                .weight = q.get(),
                                                .scale = scale.get(),
                                                .minimum = c.has_minimum ? minimum.get() : nullptr,
                                                .residual = c.residual ? residual.get() : nullptr,
                                                .rows = c.rows,
                                                .columns = c.columns,
                                                .depth = c.depth,
                                                .groups = c.groups,
                                                .group_size = c.depth / c.groups},
                        nullptr));
    report.compare("weight_only_gemm",
                   std::to_string(c.rows) + " x " + std::to_string(c.columns) + " x " + std::to_string(c.depth) +
                       (c.is_int4 ? " int4" : " int8"),
                   relative_error(output.get(), reference), std::is_same_v<T, __half> ? 1e-3 : 6e-3);
  }
}

}  // namespace

void test_gemm(Report& report) {
  test_type<__nv_bfloat16, __nv_bfloat16>(report);
  test_type<__half, __half>(report);
  test_type<__nv_fp8_e4m3, __nv_bfloat16>(report);
  test_weight_only<__nv_bfloat16>(report);
  test_weight_only<__half>(report);
}

}  // namespace inflight::gpu_test
