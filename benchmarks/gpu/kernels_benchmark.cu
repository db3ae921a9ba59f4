// What each GPU kernel takes, in a CUDA graph, on data that rotates beyond the second-level cache, beside the ceilings
// of the same GPU in the same run. Shapes are Llama-3.1-8B's, bfloat16.
//   gpu_kernels_benchmark OUT.json COMMIT [SUBJECT]...     subjects: small attention context sampling

#include <cstring>
#include <fstream>
#include <functional>

#include "combine_attention.h"
#include "context_attention.h"
#include "device.cuh"
#include "embedding.h"
#include "engine/tensorrt/kernels/sampling.h"
#include "gated_activation.h"
#include "generation_attention.h"
#include "layer_norm.h"
#include "paged_cache.cuh"
#include "quantize_tokens.h"
#include "rms_norm.h"
#include "rotate_and_cache.h"

namespace inflight::gpu_test {
namespace {

using namespace kernels;
using T = __nv_bfloat16;

constexpr int kHidden = 4096, kIntermediate = 14336, kQueryHeads = 32, kKvHeads = 8, kHeadSize = 128, kVocab = 128256;
constexpr int kBlockShift = 6;
constexpr size_t kBeyondCache = size_t{600} << 20;

cudaStream_t stream;

// Microseconds of one call of `body(i)`, i of [0, rotations): the median of several replays of one graph.
double microseconds(int rotations, const std::function<void(int)>& body) {
  for (int i = 0; i < std::min(rotations, 2); ++i) body(i);
  CHECK_CUDA(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < rotations; ++i) body(i);
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  CHECK_CUDA(cudaGraphLaunch(executable, stream));
  std::vector<float> times;
  for (int i = 0; i < 7; ++i) {
    float milliseconds;
    CHECK_CUDA(cudaEventRecord(begin, stream));
    CHECK_CUDA(cudaGraphLaunch(executable, stream));
    CHECK_CUDA(cudaEventRecord(end, stream));
    CHECK_CUDA(cudaEventSynchronize(end));
    CHECK_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    times.push_back(milliseconds);
  }
  std::ranges::sort(times);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return times[times.size() / 2] * 1e3 / rotations;
}

struct Results {
  double read_ceiling = 0;  // TB/s
  double gemm_ceiling = 790;  // TFLOP/s of a large bfloat16 product on an H200, measured before with cuBLASLt
  std::string rows;

  void bytes(const char* kernel, const std::string& shape, double us, double bytes, const std::string& more = "") {
    add(kernel, shape, us, bytes / us / 1e6, "tb_per_s", read_ceiling, more);
  }
  void operations(const char* kernel, const std::string& shape, double us, double operations) {
    add(kernel, shape, us, operations / us / 1e6, "tflop_per_s", gemm_ceiling, "");
  }

 private:
  void add(const char* kernel, const std::string& shape, double us, double rate, const char* unit, double ceiling,
           const std::string& more) {
    char text[400];
    std::snprintf(text, sizeof text,
                  "{\"kernel\": \"%s\", \"shape\": \"%s\", \"us\": %.2f, \"%s\": %.3f, \"share_of_ceiling\": %.3f%s}",
                  kernel, shape.c_str(), us, unit, rate, rate / ceiling, more.c_str());
    rows += (rows.empty() ? "    " : ",\n    ") + std::string(text);
    std::printf("%-22s %-40s %9.2f us %8.2f %s%s\n", kernel, shape.c_str(), us, rate, unit, more.c_str());
    std::fflush(stdout);
  }
};

__global__ void read_all(const uint4* data, size_t size, unsigned* sink) {
  unsigned sum = 0;
#pragma unroll 8
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < size; i += size_t{gridDim.x} * blockDim.x) {
    const uint4 v = data[i];
    sum ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x12345678) *sink = sum;
}

void measure_ceilings(Results& results) {
  const auto data = normal<float>(size_t{1} << 30, 1.0f, 1);
  Array<unsigned> sink(1);
  for (const int blocks : {132 * 4, 132 * 8, 132 * 16}) {
    const double us = microseconds(1, [&](int) {
      read_all<<<blocks, 512, 0, stream>>>(reinterpret_cast<const uint4*>(data.get()), data.size() / 4, sink.get());
    });
    results.read_ceiling = std::max(results.read_ceiling, data.size() * 4 / us / 1e6);
  }
  std::printf("reading: %.2f TB/s\n", results.read_ceiling);
}

// A buffer for each rotation.
struct Rotating {
  std::vector<Array<T>> buffers;
  Rotating(int rotations, size_t size) {
    for (int i = 0; i < rotations; ++i) buffers.push_back(normal<T>(size, 1.0f, i));
  }
  T* operator[](int i) const { return buffers[i].get(); }
};

int rotations_for(size_t bytes) { return std::clamp<int>(kBeyondCache / bytes, 2, 64); }

void measure_small(Results& results) {
  const auto weight = normal<float>(kHidden, 1.0f, 3);
  const auto table = normal<T>(size_t{kVocab} * kHidden, 1.0f, 4);
  const auto cos_sin = normal<float>(size_t{8192} * kHeadSize, 1.0f, 5);
  for (const int rows : {1, 8, 32, 128, 256, 2048, 8192}) {
    const std::string shape = std::to_string(rows) + " x " + std::to_string(kHidden);
    const size_t size = size_t{1} * rows * kHidden;
    {
      const int n = rotations_for(size * 2 * 4);
      const Rotating input(n, size), residual(n, size), output(n, size);
      for (const bool programmatic : {false, true}) {
        const auto norm = [&](int i) {
          CHECK_LAUNCH(launch(RmsNorm{.dtype = DataType::kBFloat16,
                                      .add_residual = true,
                                      .output = output[i],
                                      .sum_output = residual[i],
                                      .input = input[i],
                                      .residual = residual[i],
                                      .weight = weight.get(),
                                      .rows = rows,
                                      .size = kHidden,
                                      .epsilon = 1e-5f,
                                      .programmatic_launch = programmatic},
                              stream));
        };
        results.bytes("rms_norm + residual", shape + (programmatic ? " programmatic" : ""), microseconds(n, norm),
                      size * 8.0);
      }
      results.bytes("layer_norm", shape,
                    microseconds(n,
                                 [&](int i) {
                                   CHECK_LAUNCH(launch(LayerNorm{.dtype = DataType::kBFloat16,
                                                                 .add_residual = false,
                                                                 .add_bias = true,
                                                                 .output = output[i],
                                                                 .sum_output = nullptr,
                                                                 .input = input[i],
                                                                 .residual = nullptr,
                                                                 .weight = weight.get(),
                                                                 .bias = weight.get(),
                                                                 .rows = rows,
                                                                 .size = kHidden,
                                                                 .epsilon = 1e-5f},
                                                       stream));
                                 }),
                    size * 4.0);
      Array<int8_t> quantized(size * n);
      Array<float> scales(rows);
      results.bytes("quantize_tokens fp8", shape,
                    microseconds(n,
                                 [&](int i) {
                                   CHECK_LAUNCH(launch(QuantizeTokens{.dtype = DataType::kBFloat16,
                                                                      .quantized = DataType::kFloat8E4M3,
                                                                      .output = quantized.get() + size * i,
                                                                      .scales = scales.get(),
                                                                      .input = input[i],
                                                                      .rows = rows,
                                                                      .size = kHidden},
                                                       stream));
                                 }),
                    size * 3.0);
      std::vector<int32_t> ids(rows * n);
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(mixed(i) % kVocab);
      const Array<int32_t> device_ids(ids);
      results.bytes("embedding", shape,
                    microseconds(n,
                                 [&](int i) {
                                   CHECK_LAUNCH(launch(Embedding{.dtype = DataType::kBFloat16,
                                                                 .output = output[i],
                                                                 .table = table.get(),
                                                                 .ids = device_ids.get() + rows * i,
                                                                 .tokens = rows,
                                                                 .size = kHidden,
                                                                 .first_id = 0,
                                                                 .num_ids = kVocab,
                                                                 .scale = 1.0f},
                                                       stream));
                                 }),
                    size * 4.0);
    }
    {
      const size_t wide = size_t{1} * rows * kIntermediate;
      const int n = rotations_for(wide * 6);
      const Rotating input(n, 2 * wide), output(n, wide);
      results.bytes("gated_activation silu", std::to_string(rows) + " x " + std::to_string(kIntermediate),
                    microseconds(n,
                                 [&](int i) {
                                   CHECK_LAUNCH(launch(GatedActivation{.dtype = DataType::kBFloat16,
                                                                       .activation = GatedActivationActivation::kSilu,
                                                                       .gated = true,
                                                                       .output = output[i],
                                                                       .input = input[i],
                                                                       .rows = rows,
                                                                       .size = kIntermediate},
                                                       stream));
                                 }),
                    wide * 6.0);
    }
    {
      const int heads = kQueryHeads + 2 * kKvHeads;
      const size_t wide = size_t{1} * rows * heads * kHeadSize;
      const int n = std::min(rotations_for(wide * 4), 16);
      const Rotating qkv(n, wide), queries(n, size);
      PagedCache<T> cache(std::vector<int32_t>(rows, 64), kKvHeads, kHeadSize, kBlockShift, 1);
      std::vector<int32_t> positions(rows, 63), sequences(rows);
      for (int i = 0; i < rows; ++i) sequences[i] = i;
      const Array<int32_t> device_positions(positions), device_sequences(sequences);
      results.bytes("rotate_and_cache", std::to_string(rows) + " x 32+8+8 heads",
                    microseconds(n,
                                 [&](int i) {
                                   CHECK_LAUNCH(launch(RotateAndCache{.dtype = DataType::kBFloat16,
                                                                      .cache = DataType::kBFloat16,
                                                                      .head_size = kHeadSize,
                                                                      .interleaved = false,
                                                                      .normalize = false,
                                                                      .queries = queries[i],
                                                                      .key_cache = cache.keys.get(),
                                                                      .value_cache = cache.values.get(),
                                                                      .qkv = qkv[i],
                                                                      .query_norm = nullptr,
                                                                      .key_norm = nullptr,
                                                                      .cos_sin = cos_sin.get(),
                                                                      .positions = device_positions.get(),
                                                                      .sequences = device_sequences.get(),
                                                                      .block_table = cache.table.get(),
                                                                      .table_stride = cache.table_stride,
                                                                      .block_stride = cache.block_stride(),
                                                                      .token_stride = cache.token_stride(),
                                                                      .head_stride = kHeadSize,
                                                                      .block_shift = kBlockShift,
                                                                      .tokens = rows,
                                                                      .query_heads = kQueryHeads,
                                                                      .kv_heads = kKvHeads,
                                                                      .rotary_size = kHeadSize,
                                                                      .epsilon = 0,
                                                                      .key_scale = 1,
                                                                      .value_scale = 1},
                                                       stream));
                                 }),
                    wide * 4.0);
    }
  }
}

// Caches of several "layers": none is in the second-level cache when its turn comes.
template <class C>
std::vector<PagedCache<C>> layers(const std::vector<int32_t>& lengths) {
  const size_t bytes = size_t{1} * lengths.size() * lengths[0] * kKvHeads * kHeadSize * 2 * sizeof(C);
  std::vector<PagedCache<C>> result;
  const int n = std::clamp<int>(kBeyondCache / bytes, 2, 96);
  for (int i = 0; i < n; ++i) result.emplace_back(lengths, kKvHeads, kHeadSize, kBlockShift, i);
  return result;
}

template <class C>
void measure_generation(Results& results, int batch, int context) {
  const auto caches = layers<C>(std::vector<int32_t>(batch, context));
  const size_t size = size_t{1} * batch * kQueryHeads * kHeadSize;
  const auto queries = normal<T>(size, 1.0f, 1);
  Array<T> output(size);
  Array<float> parts(size * 64), sums(size_t{1} * batch * kQueryHeads * 64);
  GenerationAttention arguments{.dtype = DataType::kBFloat16,
                                .cache = data_type<C>(),
                                .head_size = kHeadSize,
                                .scores = GenerationAttentionScores::kPlain,
                                .output = output.get(),
                                .partial_output = parts.get(),
                                .partial_sum = sums.get(),
                                .queries = queries.get(),
                                .key_cache = nullptr,
                                .value_cache = nullptr,
                                .block_table = nullptr,
                                .lengths = nullptr,
                                .slopes = nullptr,
                                .table_stride = caches[0].table_stride,
                                .block_stride = caches[0].block_stride(),
                                .token_stride = caches[0].token_stride(),
                                .head_stride = kHeadSize,
                                .block_shift = kBlockShift,
                                .sequences = batch,
                                .query_heads = kQueryHeads,
                                .kv_heads = kKvHeads,
                                .splits = 1,
                                .window = 0,
                                .sinks = 0,
                                .scale = 0.088388f,
                                .soft_cap = 0,
                                .value_scale = 1};
  const auto time = [&](int splits) {
    arguments.splits = splits;
    return microseconds(static_cast<int>(caches.size()), [&](int i) {
      arguments.key_cache = caches[i].keys.get();
      arguments.value_cache = caches[i].values.get();
      arguments.block_table = caches[i].table.get();
      arguments.lengths = caches[i].lengths.get();
      CHECK_LAUNCH(launch(arguments, stream));
      if (splits == 1) return;
      CHECK_LAUNCH(launch(CombineAttention{.dtype = DataType::kBFloat16,
                                           .head_size = kHeadSize,
                                           .output = output.get(),
                                           .partial_output = parts.get(),
                                           .partial_sum = sums.get(),
                                           .rows = batch * kQueryHeads,
                                           .splits = splits},
                          stream));
    });
  };
  const double bytes = 2.0 * sizeof(C) * batch * context * kKvHeads * kHeadSize;
  const int chosen = choose_splits(arguments);
  double best = 1e30;
  int best_splits = 1;
  std::string all;
  for (const int splits : {1, 2, 4, 8, 16, 32, 64}) {
    if (splits > 1 && (context / splits < 64 || batch * kKvHeads * splits > 2048)) continue;
    const double us = time(splits);
    all += (all.empty() ? "" : ", ") + std::string("\"") + std::to_string(splits) +
           "\": " + std::to_string(us).substr(0, 6);
    if (us < best) best = us, best_splits = splits;
  }
  const std::string shape =
      std::to_string(batch) + " x " + std::to_string(context) + (sizeof(C) == 1 ? " fp8 cache" : "");
  results.bytes("generation_attention", shape, time(chosen), bytes,
                ", \"splits\": " + std::to_string(chosen) + ", \"best_splits\": " + std::to_string(best_splits) +
                    ", \"us_of_splits\": {" + all + "}");
}

void measure_context(Results& results, int batch, int chunk, int length) {
  std::vector<int32_t> first;
  for (int i = 0; i <= batch; ++i) first.push_back(i * chunk);
  const Array<int32_t> device_first(first);
  PagedCache<T> cache(std::vector<int32_t>(batch, length), kKvHeads, kHeadSize, kBlockShift, 1);
  const size_t size = size_t{1} * batch * chunk * kQueryHeads * kHeadSize;
  const auto queries = normal<T>(size, 1.0f, 1);
  Array<T> output(size);
  const double us = microseconds(4, [&](int) {
    CHECK_LAUNCH(launch(ContextAttention{.dtype = DataType::kBFloat16,
                                         .cache = DataType::kBFloat16,
                                         .head_size = kHeadSize,
                                         .scores = ContextAttentionScores::kPlain,
                                         .output = output.get(),
                                         .queries = queries.get(),
                                         .first_query = device_first.get(),
                                         .key_cache = cache.keys.get(),
                                         .value_cache = cache.values.get(),
                                         .block_table = cache.table.get(),
                                         .lengths = cache.lengths.get(),
                                         .slopes = nullptr,
                                         .table_stride = cache.table_stride,
                                         .block_stride = cache.block_stride(),
                                         .token_stride = cache.token_stride(),
                                         .head_stride = kHeadSize,
                                         .block_shift = kBlockShift,
                                         .sequences = batch,
                                         .longest_chunk = chunk,
                                         .query_heads = kQueryHeads,
                                         .kv_heads = kKvHeads,
                                         .window = 0,
                                         .sinks = 0,
                                         .scale = 0.088388f,
                                         .soft_cap = 0,
                                         .value_scale = 1},
                        stream));
  });
  const double keys = double{1} * chunk * (length - chunk) + double{1} * chunk * (chunk + 1) / 2;
  results.operations("context_attention",
                     std::to_string(batch) + " x " + std::to_string(chunk) + " to " + std::to_string(length), us,
                     4.0 * batch * kQueryHeads * kHeadSize * keys);
}

void measure_sampling(Results& results) {
  struct Setting {
    const char* name;
    gpu::SamplingRow row;
    float spread;
  };
  const Setting settings[] = {
      {"greedy", {.top_k = 1, .top_p = 0, .temperature = 1}, 2.0f},
      {"top-k 50 top-p 0.9", {.top_k = 50, .top_p = 0.9f, .temperature = 0.8f}, 2.0f},
      {"top-k 1000 top-p 0.9", {.top_k = 1000, .top_p = 0.9f, .temperature = 1}, 2.0f},
      {"top-p 0.9 peaked", {.top_k = 0, .top_p = 0.9f, .temperature = 1}, 6.0f},
      {"top-p 0.9", {.top_k = 0, .top_p = 0.9f, .temperature = 1}, 2.0f},
      {"top-p 0.9 flat", {.top_k = 0, .top_p = 0.9f, .temperature = 1}, 0.01f},
      {"temperature alone", {.top_k = 0, .top_p = 1, .temperature = 1}, 2.0f},
      {"min-p 0.05", {.top_k = 0, .top_p = 1, .min_p = 0.05f, .temperature = 1}, 2.0f},
  };
  for (const int rows : {1, 8, 32, 128, 256}) {
    const size_t size = size_t{1} * rows * kVocab;
    const int n = std::clamp<int>(kBeyondCache / (size * 2), 4, 32);
    Array<T> logits(size * n);
    Array<int32_t> tokens(rows * 20);
    Array<float> log_probs(rows * 20);
    for (const auto& [name, row, spread] : settings) {
      fill(logits, spread, rows);
      std::vector<gpu::SamplingRow> all(rows, row);
      for (int i = 0; i < rows; ++i) all[i].seed = i;
      const Array<gpu::SamplingRow> device_rows(all);
      const double us = microseconds(n, [&](int i) {
        CHECK_CUDA(sample_tokens(logits.get() + size * i, gpu::LogitType::kBFloat16, rows, kVocab, device_rows.get(),
                                 tokens.get(), stream));
      });
      results.bytes("sample_tokens", std::string(name) + ", " + std::to_string(rows) + " rows", us, size * 2.0);
    }
    results.bytes("top_log_probs", "20, " + std::to_string(rows) + " rows",
                  microseconds(n,
                               [&](int i) {
                                 CHECK_CUDA(top_log_probs(logits.get() + size * i, gpu::LogitType::kBFloat16, rows,
                                                          kVocab, 20, tokens.get(), log_probs.get(), stream));
                               }),
                  size * 2.0);
  }
}

int run(int count, char** arguments) {
  const auto wanted = [&](const char* subject) {
    bool found = count == 3;
    for (int i = 3; i < count; ++i) found |= std::strcmp(arguments[i], subject) == 0;
    return found;
  };
  cudaDeviceProp device;
  CHECK_CUDA(cudaGetDeviceProperties(&device, 0));
  CHECK_CUDA(cudaStreamCreate(&stream));
  Results results;
  measure_ceilings(results);
  if (wanted("attention")) {
    for (const auto [batch, context] : {std::pair{1, 256},
                                        {1, 2048},
                                        {1, 16384},
                                        {1, 65536},
                                        {8, 256},
                                        {8, 2048},
                                        {32, 256},
                                        {32, 2048},
                                        {128, 256},
                                        {128, 2048},
                                        {256, 256},
                                        {256, 2048}}) {
      measure_generation<T>(results, batch, context);
    }
    for (const auto [batch, context] : {std::pair{1, 2048}, {32, 2048}, {256, 256}}) {
      measure_generation<__nv_fp8_e4m3>(results, batch, context);
    }
  }
  if (wanted("context")) {
    measure_context(results, 1, 2048, 2048);
    measure_context(results, 1, 8192, 8192);
    measure_context(results, 4, 2048, 2048);
    measure_context(results, 1, 512, 4608);
    measure_context(results, 64, 128, 128);
  }
  if (wanted("small")) measure_small(results);
  if (wanted("sampling")) measure_sampling(results);
  char head[400];
  std::snprintf(head, sizeof head,
                "{\n  \"machine\": \"%s\",\n  \"commit\": \"%s\",\n  \"read_ceiling_tb_per_s\": %.2f,\n  "
                "\"gemm_ceiling_tflop_per_s\": %.0f,\n",
                device.name, arguments[2], results.read_ceiling, results.gemm_ceiling);
  std::ofstream(arguments[1]) << head << "  \"rows\": [\n" << results.rows << "\n  ]\n}\n";
  return 0;
}

}  // namespace
}  // namespace inflight::gpu_test

int main(int count, char** arguments) {
  if (count < 3) return std::puts("gpu_kernels_benchmark OUT.json COMMIT [SUBJECT]..."), 2;
  return inflight::gpu_test::run(count, arguments);
}
