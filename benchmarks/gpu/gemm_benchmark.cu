// Products at the shapes of Llama-3.1-8B: every way to compute each, in graphs that rotate over weights beyond the
// second-level cache, the card kept busy before.
//   gpu_gemm_benchmark OUT.json COMMIT [bf16] [fp16] [e4m3]     default: all

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstring>
#include <fstream>

#include "device.cuh"
#include "engine/tensorrt/gemm/gemm.h"

namespace inflight::gpu_test {
namespace {

using namespace gpu;

constexpr double kReadCeiling = 4.57;    // TB/s, of h200_kernels.json
constexpr double kGemmCeiling = 790e-3;  // PFLOP/s of a large bfloat16 product
constexpr size_t kBeyondCache = size_t{400} << 20;
constexpr int32_t kRows[] = {1, 8, 16, 32, 64, 128, 256, 512, 2048};

struct Layer {
  const char* name;
  GemmEpilogue epilogue;
  int columns, depth;
};
constexpr Layer kLayers[] = {{"qkv", GemmEpilogue::kStore, 6144, 4096},
                             {"o", GemmEpilogue::kAddResidual, 4096, 4096},
                             {"gate_up", GemmEpilogue::kSwiGlu, 28672, 4096},
                             {"down", GemmEpilogue::kAddResidual, 4096, 14336},
                             {"lm_head", GemmEpilogue::kStore, 128256, 4096}};

cudaStream_t stream;

std::string describe(const GemmTactic& tactic) {
  if (tactic.method == GemmMethod::kSkinny) return "skinny";
  if (tactic.method == GemmMethod::kSplit) return "split " + std::to_string(tactic.algorithm[0]);
  return "cublaslt";
}

template <class T>
void run_type(const char* name, GemmType input, GemmType output, std::string& rows_json) {
  const Array<T> pool = normal<T>(size_t{2} * 128256 * 4096 / sizeof(T) * 2, 0.02f * (sizeof(T) == 1 ? 50 : 1), 1);
  const Array<T> x = normal<T>(size_t{2048} * 14336, 1.0f, 2);
  Array<uint16_t> y(size_t{2048} * 128256);
  const Array<uint16_t> residual(size_t{2048} * 4096);
  CHECK_CUDA(cudaMemset(residual.get(), 0, residual.size() * 2));
  const Array<float> one(std::vector<float>{1.0f});
  for (const Layer& layer : kLayers) {
    const GemmShape shape{input, output, layer.epilogue, layer.columns, layer.depth};
    const size_t values = size_t{1} * layer.columns * layer.depth, bytes = values * sizeof(T);
    const size_t calls = std::min(pool.size() / values, std::max<size_t>(2, kBeyondCache / bytes + 1));
    std::vector<const void*> weights;
    for (size_t i = 0; i < calls; ++i) weights.push_back(pool.get() + i * values);
    Array<char> workspace(workspace_bytes(shape, 2048)), counters(counter_bytes(shape));
    CHECK_CUDA(cudaMemset(counters.get(), 0, counters.size()));
    GemmTactics best;
    std::vector<GemmTactic> all;
    CHECK_LAUNCH(measure(shape, kRows, weights,
                         {.output = y.get(),
                          .input = x.get(),
                          .weight = nullptr,
                          .residual = layer.epilogue == GemmEpilogue::kAddResidual ? residual.get() : nullptr,
                          .input_scale = sizeof(T) == 1 ? one.get() : nullptr,
                          .weight_scale = sizeof(T) == 1 ? one.get() : nullptr,
                          .workspace = workspace.get(),
                          .counters = counters.get(),
                          .rows = 0},
                         nullptr, stream, best, &all));
    for (const GemmTactic& tactic : best) {
      std::map<std::string, float> of_methods;
      for (const GemmTactic& other : all) {
        if (other.rows != tactic.rows) continue;
        const auto [found, is_new] = of_methods.try_emplace(describe(other), other.microseconds);
        if (!is_new) found->second = std::min(found->second, other.microseconds);
      }
      std::string ways;
      for (const auto& [way, us] : of_methods) {
        ways += (ways.empty() ? "\"" : ", \"") + way + "\": " + std::to_string(us).substr(0, 6);
      }
      const double seconds = tactic.microseconds * 1e-6;
      const double floor = std::max(bytes / kReadCeiling / 1e12,
                                    2.0 * tactic.rows * values / kGemmCeiling / 1e15 * (sizeof(T) == 1 ? 0.5 : 1));
      char text[500];
      std::snprintf(text, sizeof text,
                    "{\"type\": \"%s\", \"layer\": \"%s\", \"rows\": %d, \"us\": %.2f, \"tb_per_s\": %.2f, "
                    "\"tflop_per_s\": %.0f, \"share_of_ceiling\": %.3f, \"way\": \"%s\", \"us_of_ways\": {%s}}",
                    name, layer.name, tactic.rows, tactic.microseconds, bytes / seconds / 1e12,
                    2.0 * tactic.rows * values / seconds / 1e12, floor / seconds, describe(tactic).c_str(),
                    ways.c_str());
      rows_json += (rows_json.empty() ? "    " : ",\n    ") + std::string(text);
      std::printf("%s %-8s %5d %9.2f us %.3f  %s\n", name, layer.name, tactic.rows, tactic.microseconds,
                  floor / seconds, ways.c_str());
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace inflight::gpu_test

int main(int count, char** arguments) {
  using namespace inflight::gpu_test;
  if (count < 3) return std::puts("gpu_gemm_benchmark OUT.json COMMIT [bf16] [fp16] [e4m3]"), 2;
  CHECK_CUDA(cudaFree(nullptr));
  CHECK_CUDA(cudaStreamCreate(&stream));
  const auto wanted = [&](const char* type) {
    bool found = count == 3;
    for (int i = 3; i < count; ++i) found |= std::strcmp(arguments[i], type) == 0;
    return found;
  };
  std::string rows;
  using inflight::gpu::GemmType;
  if (wanted("bf16")) run_type<__nv_bfloat16>("bf16", GemmType::kBFloat16, GemmType::kBFloat16, rows);
  if (wanted("fp16")) run_type<__half>("fp16", GemmType::kFloat16, GemmType::kFloat16, rows);
  if (wanted("e4m3")) run_type<__nv_fp8_e4m3>("e4m3", GemmType::kFloat8E4M3, GemmType::kBFloat16, rows);
  cudaDeviceProp device;
  CHECK_CUDA(cudaGetDeviceProperties(&device, 0));
  std::ofstream(arguments[1]) << "{\n  \"machine\": \"" << device.name << "\",\n  \"commit\": \"" << arguments[2]
                              << "\",\n  \"read_ceiling_tb_per_s\": " << kReadCeiling
                              << ",\n  \"gemm_ceiling_tflop_per_s\": " << kGemmCeiling * 1e3 << ",\n  \"rows\": [\n"
                              << rows << "\n  ]\n}\n";
  return 0;
}
