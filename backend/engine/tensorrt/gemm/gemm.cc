#include "engine/tensorrt/gemm/gemm.h"

#include <algorithm>

#include "engine/tensorrt/gemm/skinny_gemm.h"
#include "gated_activation.h"
#include "split_gemm.h"

namespace inflight::gpu {
namespace {

using kernels::DataType;
using kernels::Status;

DataType data_type(GemmType type) { return type == GemmType::kBFloat16 ? DataType::kBFloat16 : DataType::kFloat16; }

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// What cuBLASLt writes where the epilogue is kSwiGlu.
size_t product_bytes(const GemmShape& shape, int32_t rows) {
  return shape.epilogue == GemmEpilogue::kSwiGlu ? aligned(size_t{2} * rows * shape.columns) : 0;
}

bool is_skinny(const GemmShape& shape, int32_t rows) {
  return shape.input == shape.output && fits_skinny_gemm(rows, shape.columns, shape.depth);
}

kernels::SplitGemm split_gemm(const GemmShape& shape, const GemmArguments& arguments, int32_t splits) {
  return {.dtype = data_type(shape.input),
          .add_residual = shape.epilogue == GemmEpilogue::kAddResidual,
          .output = arguments.output,
          .input = arguments.input,
          .weight = arguments.weight,
          .residual = arguments.residual,
          .partials = static_cast<float*>(arguments.workspace),
          .counters = static_cast<int32_t*>(arguments.counters),
          .rows = arguments.rows,
          .columns = shape.columns,
          .depth = shape.depth,
          .splits = splits,
          .programmatic_launch = true};
}

kernels::GatedActivation gated_activation(const GemmShape& shape) {
  kernels::GatedActivation activation{};
  activation.dtype = data_type(shape.output);
  activation.activation = kernels::GatedActivationActivation::kSilu;
  activation.gated = true;
  activation.size = shape.columns / 2;
  activation.programmatic_launch = true;
  return activation;
}

constexpr int32_t kMaxSplitRows = 64;
constexpr int32_t kMaxSplits = 8;

bool is_split(const GemmShape& shape, int32_t rows) {
  return shape.input == shape.output && shape.epilogue != GemmEpilogue::kSwiGlu && rows <= kMaxSplitRows &&
         shape.columns % 64 == 0 && shape.depth % 128 == 0;
}

Status enqueue_cublaslt(const GemmShape& shape, const GemmTactic* tactic, const GemmArguments& arguments,
                        cudaStream_t stream) {
  const CublasLt* cublaslt = nullptr;
  if (Status status = CublasLt::get(&cublaslt); !status.ok()) return status;
  const bool activates = shape.epilogue == GemmEpilogue::kSwiGlu;
  void* const room = static_cast<char*>(arguments.workspace) + product_bytes(shape, arguments.rows);
  const CublasLtProduct product{.output = activates ? arguments.workspace : arguments.output,
                                .input = arguments.input,
                                .weight = arguments.weight,
                                .residual = shape.epilogue == GemmEpilogue::kAddResidual ? arguments.residual : nullptr,
                                .input_scale = arguments.input_scale,
                                .weight_scale = arguments.weight_scale,
                                .rows = arguments.rows};
  Status status = cublaslt->multiply(shape, product, tactic ? &tactic->algorithm : nullptr, room, stream);
  if (!status.ok() || !activates) return status;
  kernels::GatedActivation activation = gated_activation(shape);
  activation.output = arguments.output;
  activation.input = arguments.workspace;
  activation.rows = arguments.rows;
  return launch(activation, stream);
}

Status error_of(const char* what, cudaError_t error) {
  return Status::error(std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace

size_t workspace_bytes(const GemmShape& shape, int32_t max_rows) {
  size_t bytes = product_bytes(shape, max_rows) + CublasLt::kWorkspaceBytes;
  if (is_skinny(shape, 1)) bytes = std::max(bytes, skinny_partial_bytes(shape.columns, shape.depth));
  if (is_split(shape, 1)) {
    const int32_t rows = std::min(max_rows, kMaxSplitRows);
    bytes = std::max(bytes, size_t{4} * kMaxSplits * shape.columns * std::max(16, (rows + 15) / 16 * 16));
  }
  return aligned(bytes);
}

size_t counter_bytes(const GemmShape& shape) { return aligned(skinny_counter_bytes(shape.columns)); }

Status load_gemm(const GemmShape& shape) {
  const CublasLt* cublaslt = nullptr;
  Status status = CublasLt::get(&cublaslt);
  if (status.ok() && shape.epilogue == GemmEpilogue::kSwiGlu) status = kernels::load(gated_activation(shape));
  if (status.ok() && is_skinny(shape, 1)) status = load_skinny_gemm(shape.input, shape.epilogue);
  for (const int32_t rows : {1, 32, kMaxSplitRows}) {
    if (!status.ok() || !is_split(shape, rows)) continue;
    kernels::SplitGemm split = split_gemm(shape, GemmArguments{}, 1);
    split.rows = rows;
    status = kernels::load(split);
  }
  return status;
}

Status enqueue(const GemmShape& shape, const GemmTactic* tactic, const GemmArguments& arguments, cudaStream_t stream) {
  if (arguments.rows == 0) return {};
  const GemmMethod method = tactic == nullptr ? GemmMethod::kCublasLt : tactic->method;
  if (method == GemmMethod::kSkinny) {
    return launch(SkinnyGemm{.type = shape.input,
                             .epilogue = shape.epilogue,
                             .output = arguments.output,
                             .input = arguments.input,
                             .weight = arguments.weight,
                             .residual = arguments.residual,
                             .counters = arguments.counters,
                             .partials = arguments.workspace,
                             .rows = arguments.rows,
                             .columns = shape.columns,
                             .depth = shape.depth,
                             .programmatic_launch = true},
                  stream);
  }
  if (method == GemmMethod::kSplit) {
    return launch(split_gemm(shape, arguments, static_cast<int32_t>(tactic->algorithm[0])), stream);
  }
  return enqueue_cublaslt(shape, tactic, arguments, stream);
}

Status measure_graph(int32_t calls, const std::function<Status(int32_t)>& body, cudaStream_t stream,
                     float& microseconds) {
  if (Status status = body(0); !status.ok()) return status;  // loads what a graph cannot
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  if (error != cudaSuccess) return error_of("cudaStreamBeginCapture", error);
  Status status;
  for (int32_t i = 0; i < calls && status.ok(); ++i) status = body(i);
  error = cudaStreamEndCapture(stream, &graph);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&executable, graph, 0);
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  float times[3] = {};
  if (error == cudaSuccess) error = cudaGraphLaunch(executable, stream);
  for (float& milliseconds : times) {
    if (error == cudaSuccess) error = cudaEventRecord(begin, stream);
    if (error == cudaSuccess) error = cudaGraphLaunch(executable, stream);
    if (error == cudaSuccess) error = cudaEventRecord(end, stream);
    if (error == cudaSuccess) error = cudaEventSynchronize(end);
    if (error == cudaSuccess) error = cudaEventElapsedTime(&milliseconds, begin, end);
  }
  std::ranges::sort(times);
  microseconds = times[1] * 1e3f / static_cast<float>(calls);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  if (executable != nullptr) cudaGraphExecDestroy(executable);
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (!status.ok() || error == cudaSuccess) return status;
  return error_of("measuring a graph", error);
}

Status measure(const GemmShape& shape, std::span<const int32_t> all_rows, std::span<const void* const> weights,
               GemmArguments arguments, const std::function<Status(int32_t)>& before, cudaStream_t stream,
               GemmTactics& tactics, std::vector<GemmTactic>* all) {
  constexpr int32_t kCandidates = 32;
  const CublasLt* cublaslt = nullptr;
  if (Status status = CublasLt::get(&cublaslt); !status.ok()) return status;
  tactics.clear();
  for (const int32_t rows : all_rows) {
    arguments.rows = rows;
    std::vector<GemmTactic> candidates;
    std::vector<std::array<uint64_t, 8>> algorithms;
    if (Status status = cublaslt->candidates(shape, rows, kCandidates, algorithms); !status.ok()) return status;
    for (const auto& algorithm : algorithms) candidates.push_back({rows, GemmMethod::kCublasLt, algorithm, 0});
    if (is_skinny(shape, rows)) candidates.push_back({rows, GemmMethod::kSkinny, {}, 0});
    for (uint64_t splits = 1; splits <= kMaxSplits && is_split(shape, rows); splits *= 2) {
      candidates.push_back({rows, GemmMethod::kSplit, {splits}, 0});
    }
    const GemmTactic* best = nullptr;
    Status failure;
    for (GemmTactic& candidate : candidates) {
      Status status = measure_graph(
          static_cast<int32_t>(weights.size()),
          [&](int32_t i) {
            arguments.weight = weights[i];
            if (Status status = before ? before(rows) : Status(); !status.ok()) return status;
            return enqueue(shape, &candidate, arguments, stream);
          },
          stream, candidate.microseconds);
      if (!status.ok()) {
        failure = std::move(status);  // an algorithm that does not run is no candidate
        continue;
      }
      if (all != nullptr) all->push_back(candidate);
      if (best == nullptr || candidate.microseconds < best->microseconds) best = &candidate;
    }
    if (best == nullptr) {
      return Status::error(to_string(shape) + " of " + std::to_string(rows) + " rows: no way to compute it runs. " +
                           failure.message());
    }
    tactics.push_back(*best);
  }
  return {};
}

}  // namespace inflight::gpu
