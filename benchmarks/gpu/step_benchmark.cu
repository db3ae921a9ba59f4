// Whole steps at the shape of Llama-3.1-8B with random weights in bfloat16, each one CUDA graph, beside what 1.15 times
// vLLM 0.25.1's throughput needs on an H200. With TensorRT, as a plan of plugins; else the same operations without it.
//   gpu_step_benchmark OUT.json COMMIT [TIMING_CACHE]
// INFLIGHT_WITHOUT=skinny,split leaves ways to compute products out.

#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>

#include "decoder_step.h"
#include "engine/tensorrt/gemm/gemm.h"
#include "rms_norm.h"
#ifdef INFLIGHT_TENSORRT
#include "engine/tensorrt/tensorrt_plan.h"
#else
#include "direct_graph.h"
#endif

namespace inflight::gpu_test {
namespace {

using gpu::GemmMethod;
using gpu::GemmShape;
using gpu::GemmTactic;
using gpu::GemmTactics;

constexpr gpu::DecoderShape kShape{.type = gpu::ElementType::kBFloat16,
                                   .hidden_size = 4096,
                                   .intermediate_size = 14336,
                                   .layers = 32,
                                   .query_heads = 32,
                                   .kv_heads = 8,
                                   .head_size = 128,
                                   .vocab_size = 128256,
                                   .positions = 8192,
                                   .norm_epsilon = 1e-5f,
                                   .tokens_per_block = 64};
constexpr int32_t kMaxTokens = 8192, kMaxSequences = 512, kMaxBlocks = 32, kContext = 256;
constexpr double kReadCeiling = 4.57e12;
constexpr double kGemmCeiling = 790e12;

cudaStream_t stream;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Keeps the card busy for a second: clocks and power are then those of a server at work.
void warm(const DecoderWeights& weights, char* workspace) {
  const Array<T> x = normal<T>(size_t{4096} * 4096, 1.0f, 1);
  Array<T> y(size_t{4096} * 14336);
  for (const double end = now() + 1; now() < end;) {
    for (int i = 0; i < 20; ++i) {
      CHECK_LAUNCH(gpu::enqueue(
          GemmShape{gpu::GemmType::kBFloat16, gpu::GemmType::kBFloat16, gpu::GemmEpilogue::kStore, 14336, 4096},
          nullptr,
          {y.get(), x.get(), weights.by_name.at("gate_up")[i], nullptr, nullptr, nullptr, workspace, nullptr, 4096},
          stream));
    }
    CHECK_CUDA(cudaStreamSynchronize(stream));
  }
}

GemmTactics measure(const GemmShape& shape, const std::vector<const void*>& of_layers, int32_t max_rows) {
  const char* const without = std::getenv("INFLIGHT_WITHOUT");
  const size_t values = size_t{1} * shape.columns * shape.depth;
  const size_t calls = std::clamp<size_t>((size_t{400} << 20) / (2 * values), 2, 12);
  std::vector<const void*> weights;
  for (size_t i = 0; i < calls; ++i) weights.push_back(of_layers[i % of_layers.size()]);
  const Array<T> x = normal<T>(size_t{1} * max_rows * shape.depth, 1.0f, 2);
  const Array<T> residual = normal<T>(size_t{1} * max_rows * shape.output_columns(), 1.0f, 3);
  const Array<float> norm = normal<float>(shape.depth, 1.0f, 4);
  Array<T> y(residual.size()), normalized(x.size());
  Array<char> workspace(gpu::workspace_bytes(shape, max_rows)), counters(gpu::counter_bytes(shape));
  CHECK_CUDA(cudaMemset(counters.get(), 0, counters.size()));
  GemmTactics best;
  std::vector<GemmTactic> all;
  CHECK_LAUNCH(gpu::measure(
      shape, gpu::measured_rows(max_rows), weights,
      {y.get(), x.get(), nullptr, shape.epilogue == gpu::GemmEpilogue::kAddResidual ? residual.get() : nullptr, nullptr,
       nullptr, workspace.get(), counters.get(), 0},
      [&](int32_t rows) {
        return launch(kernels::RmsNorm{.dtype = kernels::DataType::kBFloat16,
                                       .add_residual = false,
                                       .output = normalized.get(),
                                       .sum_output = nullptr,
                                       .input = x.get(),
                                       .residual = nullptr,
                                       .weight = norm.get(),
                                       .rows = rows,
                                       .size = shape.depth,
                                       .epsilon = 1e-5f,
                                       .programmatic_launch = true},
                      stream);
      },
      stream, best, &all));
  for (GemmTactic& tactic : best) {
    float least = 1e30f;
    for (const GemmTactic& other : all) {
      const bool is_left_out =
          without != nullptr && ((other.method == GemmMethod::kSkinny && std::strstr(without, "skinny")) ||
                                 (other.method == GemmMethod::kSplit && std::strstr(without, "split")));
      if (other.rows == tactic.rows && !is_left_out && other.microseconds < least) {
        least = other.microseconds;
        tactic = other;
      }
    }
    constexpr const char* kMethods[] = {"cublaslt", "skinny", "split"};
    std::printf("%d:%s %.1f  ", tactic.rows, kMethods[static_cast<int>(tactic.method)], tactic.microseconds);
  }
  std::printf(" %s\n", to_string(shape).c_str());
  return best;
}

#ifdef INFLIGHT_TENSORRT
using Runner = gpu::TensorRtPlan;
void bind(Runner& runner, const Binding& binding) {
  runner.bind(binding.name, binding.data);
  if (!binding.varies) return;
  binding.sizes.size() == 1 ? runner.set_sizes(binding.name, {binding.sizes[0]})
                            : runner.set_sizes(binding.name, {binding.sizes[0], binding.sizes[1]});
}
void bind_output(Runner& runner, const char* name, void* data) { runner.bind(name, data); }
void prepare(Runner&) {}
#else
using Runner = DirectGraph;
void bind(Runner& runner, const Binding& binding) {
  binding.sizes.size() == 1 ? runner.bind(binding.name, binding.data, {binding.sizes[0]})
                            : runner.bind(binding.name, binding.data, {binding.sizes[0], binding.sizes[1]});
}
void bind_output(Runner& runner, const char* name, void* data) { runner.bind_output(name, data); }
void prepare(Runner& runner) { runner.prepare(); }
#endif

struct Times {
  double rested, sustained;  // ms: once after a rest, as a first token is computed, and for half a second
  size_t nodes;
};

Times time_step(Runner& runner, DecoderStep& step) {
  for (const Binding& binding : step.bindings) bind(runner, binding);
  bind_output(runner, gpu::names::kLogits, step.logits.get());
  bind_output(runner, gpu::names::kSampled, step.sampled.get());
  prepare(runner);
  for (int i = 0; i < 2; ++i) runner.enqueue(stream);
  CHECK_CUDA(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  runner.enqueue(stream);
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  Times times{};
  CHECK_CUDA(cudaGraphGetNodes(graph, nullptr, &times.nodes));
  CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  const auto replay = [&](int count) {
    float milliseconds;
    CHECK_CUDA(cudaEventRecord(begin, stream));
    for (int i = 0; i < count; ++i) CHECK_CUDA(cudaGraphLaunch(executable, stream));
    CHECK_CUDA(cudaEventRecord(end, stream));
    CHECK_CUDA(cudaEventSynchronize(end));
    CHECK_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    return milliseconds / count;
  };
  replay(1);
  std::vector<double> rested;
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    rested.push_back(replay(1));
  }
  std::ranges::sort(rested);
  times.rested = rested[1];
  const int half_a_second = std::max(3, static_cast<int>(400 / times.rested));
  replay(half_a_second);
  times.sustained = replay(half_a_second);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return times;
}

// `sequences` of `chunk` tokens each, the last of `context`.
std::vector<Slice> slices_of(int32_t sequences, int32_t chunk, int32_t context, int64_t blocks) {
  std::vector<Slice> slices;
  const int32_t each = (context + kShape.tokens_per_block - 1) / kShape.tokens_per_block;
  for (int32_t s = 0; s < sequences; ++s) {
    Slice slice{{}, context - chunk, {}};
    for (int32_t i = 0; i < chunk; ++i)
      slice.tokens.push_back(static_cast<int32_t>(mixed(s * 8191 + i) % kShape.vocab_size));
    for (int32_t i = 0; i < each; ++i) {
      slice.blocks.push_back(static_cast<int32_t>((int64_t{s} * each + i) * 7919 % blocks));
    }
    slices.push_back(slice);
  }
  return slices;
}

int run(const char* file, const char* commit, const char* timing_cache) {
  CHECK_CUDA(cudaFree(nullptr));
  CHECK_CUDA(cudaStreamCreate(&stream));
  cudaDeviceProp device;
  CHECK_CUDA(cudaGetDeviceProperties(&device, 0));
  const int64_t blocks = 512 * (kContext / 64);
  double start = now();
  const DecoderWeights weights(kShape, blocks);
  CHECK_CUDA(cudaDeviceSynchronize());
  std::printf("weights %.1f s\n", now() - start);

  start = now();
  const gpu::CublasLt* cublaslt = nullptr;
  CHECK_LAUNCH(gpu::CublasLt::get(&cublaslt));
  gpu::TimingCache cache(device.name, cublaslt->version());
  if (timing_cache != nullptr) cache.read(timing_cache);
  Array<char> workspace(size_t{64} << 20);
  const std::pair<GemmShape, const char*> products[] = {{kShape.qkv(), "qkv"},
                                                        {kShape.attention_output(), "o"},
                                                        {kShape.gate_up(), "gate_up"},
                                                        {kShape.down(), "down"},
                                                        {kShape.lm_head(), "lm_head"}};
  bool is_warm = false;
  for (const auto& [shape, name] : products) {
    if (cache.find(shape) != nullptr) continue;
    if (!is_warm) warm(weights, workspace.get());
    is_warm = true;
    cache.insert(shape, measure(shape, weights.by_name.at(name),
                                std::strcmp(name, "lm_head") == 0 ? kMaxSequences : kMaxTokens));
  }
  if (timing_cache != nullptr) cache.write(timing_cache);
  const double tuning = now() - start;
  std::printf("tactics %.1f s\n", tuning);

  const gpu::StepLimits limits{kMaxTokens, kMaxSequences, kMaxBlocks, kMaxSequences};
  const auto describe = [&](gpu::OperationGraph& graph) {
    gpu::add_decoder(graph, kShape, limits, [&](const GemmShape& shape) { return *cache.find(shape); });
  };
  start = now();
#ifdef INFLIGHT_TENSORRT
  const std::vector<char> plan = gpu::build_plan(describe);
  const double building = now() - start;
  start = now();
  Runner runner(plan);
  std::printf("plan of %.2f MB built in %.2f s, loaded in %.2f s\n", plan.size() / 1e6, building, now() - start);
#else
  const double building = 0;
  Runner runner;
  describe(runner);
#endif
  for (const Binding& binding : weights.bindings) bind(runner, binding);

  std::string rows;
  const auto add = [&](const std::string& work, const Times& times, double needed, double floor) {
    char text[300];
    std::snprintf(text, sizeof text,
                  "{\"work\": \"%s\", \"ms\": %.3f, \"ms_rested\": %.3f, \"needed_ms\": %.2f, \"share_of_ceiling\": "
                  "%.3f, \"nodes\": %zu}",
                  work.c_str(), times.sustained, times.rested, needed, floor / times.sustained, times.nodes);
    rows += (rows.empty() ? "    " : ",\n    ") + std::string(text);
    std::printf("%s\n", text);
    std::fflush(stdout);
  };
  double parameters = 2.0 * kShape.vocab_size * kShape.hidden_size;
  for (const auto& [shape, name] : products)
    parameters += std::strcmp(name, "lm_head") ? 32.0 * shape.columns * shape.depth : 0;
  parameters -= 1.0 * kShape.vocab_size * kShape.hidden_size;  // rows of the embedding alone are read
  const double kv_bytes = 2.0 * 2 * kShape.layers * kShape.kv_heads * kShape.head_size;  // of a token
  for (const auto [batch, needed] :
       {std::pair{1, 4.16}, {8, 4.31}, {16, 0.0}, {32, 4.73}, {64, 0.0}, {128, 6.34}, {256, 9.51}, {512, 0.0}}) {
    DecoderStep step(slices_of(batch, 1, kContext, blocks), kShape, kContext / kShape.tokens_per_block);
    const double floor = 1e3 * std::max((2 * parameters + batch * kContext * kv_bytes) / kReadCeiling,
                                        2 * parameters * batch / kGemmCeiling);
    add("generate " + std::to_string(batch) + " at " + std::to_string(kContext), time_step(runner, step), needed,
        floor);
  }
  for (const auto [sequences, chunk, needed] :
       {std::tuple{1, 128, 0.0}, {1, 2048, 41.7}, {4, 2048, 0.0}, {64, 128, 0.0}}) {
    DecoderStep step(slices_of(sequences, chunk, chunk, blocks), kShape, kMaxBlocks);
    const double floor =
        1e3 * std::max(2 * parameters / kReadCeiling, 2 * parameters * sequences * chunk / kGemmCeiling);
    add("prompts " + std::to_string(sequences) + " x " + std::to_string(chunk), time_step(runner, step), needed, floor);
  }
  std::ofstream(file) << "{\n  \"machine\": \"" << device.name << "\",\n  \"commit\": \"" << commit
                      << "\",\n  \"tactics_seconds\": " << tuning << ",\n  \"plan_seconds\": " << building
                      << ",\n  \"rows\": [\n"
                      << rows << "\n  ]\n}\n";
  return 0;
}

}  // namespace
}  // namespace inflight::gpu_test

int main(int count, char** arguments) {
  if (count < 3) return std::puts("gpu_step_benchmark OUT.json COMMIT [TIMING_CACHE]"), 2;
  try {
    return inflight::gpu_test::run(arguments[1], arguments[2], count > 3 ? arguments[3] : nullptr);
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
