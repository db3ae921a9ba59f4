#include "engine/tensorrt/gemm/cublaslt.h"

#include <dlfcn.h>

#include <bit>
#include <string>

namespace inflight::gpu {
namespace {

using kernels::Status;
using Algorithm = std::array<uint64_t, 8>;
static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(Algorithm));

cudaDataType_t data_type(GemmType type) {
  switch (type) {
    case GemmType::kBFloat16: return CUDA_R_16BF;
    case GemmType::kFloat16: return CUDA_R_16F;
    case GemmType::kFloat8E4M3: return CUDA_R_8F_E4M3;
  }
  return CUDA_R_16BF;
}

Status error_of(const char* call, cublasStatus_t status) {
  return Status::error(std::string(call) + " fails with cuBLAS status " + std::to_string(status));
}

constexpr std::string_view kLibrary = "libcublasLt.so.";

}  // namespace

struct CublasLt::Library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoCheck) check;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescInit_internal) init_product;
  decltype(&cublasLtMatmulDescSetAttribute) set_product;
  decltype(&cublasLtMatrixLayoutInit_internal) init_layout;
  decltype(&cublasLtMatmulPreferenceInit_internal) init_preference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference;
};

// cuBLASLt's descriptions, for columns first: yᵀ [columns, rows] = W [columns, depth] · xᵀ [depth, rows].
struct CublasLt::Problem {
  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t weight, input, output;

  cublasStatus_t init(const Library& library, const GemmShape& shape, int32_t rows, const float* input_scale,
                      const float* weight_scale) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const bool is_e4m3 = shape.input == GemmType::kFloat8E4M3;
    // Sums of E4M3 in the matrix units' own precision, where these are what takes the time. Of few rows, some
    // algorithms are then wrong by 4 %.
    const int8_t fast = rows > 16;
    const auto type = data_type(shape.input);
    const auto depth = static_cast<uint64_t>(shape.depth), columns = static_cast<uint64_t>(shape.columns);
    cublasStatus_t status = library.init_product(&product, sizeof product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      if (status == CUBLAS_STATUS_SUCCESS) status = library.set_product(&product, attribute, &value, sizeof value);
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    if (is_e4m3) {
      set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, fast);
      set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, weight_scale);
      set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, input_scale);
    }
    const auto layout = [&](cublasLtMatrixLayoutOpaque_t& layout, cudaDataType_t of, uint64_t height, uint64_t width) {
      if (status == CUBLAS_STATUS_SUCCESS) {
        status = library.init_layout(&layout, sizeof layout, of, height, width, static_cast<int64_t>(height));
      }
    };
    layout(weight, type, depth, columns);
    layout(input, type, depth, static_cast<uint64_t>(rows));
    layout(output, data_type(shape.output), columns, static_cast<uint64_t>(rows));
    return status;
  }
};

Status CublasLt::get(const CublasLt** cublaslt) {
  static CublasLt instance;
  static const Status status = instance.load();
  *cublaslt = &instance;
  return status;
}

Status CublasLt::load() {
  const std::string name = std::string(kLibrary) + std::to_string(CUBLAS_VER_MAJOR);
  void* const handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return Status::error(std::string(dlerror()) +
                         ": install it (pip install nvidia-cublas) and put its folder on LD_LIBRARY_PATH");
  }
  static Library library;
  std::string missing;
  const auto resolve = [&](const char* symbol, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, symbol));
    if (function == nullptr) missing = symbol;
  };
  resolve("cublasLtCreate", library.create);
  resolve("cublasLtGetVersion", library.version);
  resolve("cublasLtMatmul", library.matmul);
  resolve("cublasLtMatmulAlgoCheck", library.check);
  resolve("cublasLtMatmulAlgoGetHeuristic", library.heuristic);
  resolve("cublasLtMatmulDescInit_internal", library.init_product);
  resolve("cublasLtMatmulDescSetAttribute", library.set_product);
  resolve("cublasLtMatrixLayoutInit_internal", library.init_layout);
  resolve("cublasLtMatmulPreferenceInit_internal", library.init_preference);
  resolve("cublasLtMatmulPreferenceSetAttribute", library.set_preference);
  if (!missing.empty()) return Status::error(name + " has no " + missing);
  library_ = &library;
  version_ = library.version();
  const cublasStatus_t status = library.create(&handle_);
  return status == CUBLAS_STATUS_SUCCESS ? Status() : error_of("cublasLtCreate", status);
}

Status CublasLt::candidates(const GemmShape& shape, int32_t rows, int32_t count,
                            std::vector<Algorithm>& algorithms) const {
  Problem problem;
  static float scale;  // only whether there is one matters here
  cublasStatus_t status = problem.init(*library_, shape, rows, &scale, &scale);
  cublasLtMatmulPreferenceOpaque_t preference;
  if (status == CUBLAS_STATUS_SUCCESS) status = library_->init_preference(&preference, sizeof preference);
  if (status == CUBLAS_STATUS_SUCCESS) {
    const uint64_t bytes = kWorkspaceBytes;
    status = library_->set_preference(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(count);
  int found = 0;
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = library_->heuristic(handle_, &problem.product, &problem.weight, &problem.input, &problem.output,
                                 &problem.output, &preference, count, results.data(), &found);
  }
  if (status != CUBLAS_STATUS_SUCCESS) return error_of("cublasLtMatmulAlgoGetHeuristic", status);
  algorithms.clear();
  for (int i = 0; i < found; ++i) algorithms.push_back(std::bit_cast<Algorithm>(results[i].algo));
  return {};
}

Status CublasLt::multiply(const GemmShape& shape, const CublasLtProduct& product, const Algorithm* algorithm,
                          void* workspace, cudaStream_t stream) const {
  Problem problem;
  cublasStatus_t status = problem.init(*library_, shape, product.rows, product.input_scale, product.weight_scale);
  if (status != CUBLAS_STATUS_SUCCESS) return error_of("a cuBLASLt description", status);
  cublasLtMatmulAlgo_t algo;
  const cublasLtMatmulAlgo_t* chosen = nullptr;
  if (algorithm != nullptr) {
    algo = std::bit_cast<cublasLtMatmulAlgo_t>(*algorithm);
    cublasLtMatmulHeuristicResult_t result;
    status = library_->check(handle_, &problem.product, &problem.weight, &problem.input, &problem.output,
                             &problem.output, &algo, &result);
    if (status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= kWorkspaceBytes) chosen = &algo;
  }
  const float one = 1, beta = product.residual == nullptr ? 0 : 1;
  status =
      library_->matmul(handle_, &problem.product, &one, product.weight, &problem.weight, product.input, &problem.input,
                       &beta, product.residual == nullptr ? product.output : product.residual, &problem.output,
                       product.output, &problem.output, chosen, workspace, kWorkspaceBytes, stream);
  return status == CUBLAS_STATUS_SUCCESS ? Status() : error_of("cublasLtMatmul", status);
}

}  // namespace inflight::gpu
