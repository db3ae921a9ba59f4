// A plan gives, bit for bit, what the same operations give without TensorRT. Apart from gpu_kernels_test, since it
// needs TensorRT's libraries.

#include "decoder_step.h"
#include "direct_graph.h"
#include "engine/tensorrt/tensorrt_plan.h"

namespace inflight::gpu_test {
namespace {

constexpr gpu::DecoderShape kShape{.type = gpu::ElementType::kBFloat16,
                                   .hidden_size = 512,
                                   .intermediate_size = 1536,
                                   .layers = 4,
                                   .query_heads = 8,
                                   .kv_heads = 2,
                                   .head_size = 64,
                                   .vocab_size = 2048,
                                   .positions = 256,
                                   .norm_epsilon = 1e-5f,
                                   .tokens_per_block = 16};
constexpr int32_t kTableWidth = 8;

Slice slice_of(int32_t sequence, int32_t first, int32_t count) {
  Slice slice{{}, first, {}};
  for (int32_t i = 0; i < count; ++i) {
    slice.tokens.push_back(static_cast<int32_t>(mixed(1000 * sequence + first + i) % kShape.vocab_size));
  }
  for (int32_t i = 0; i < kTableWidth; ++i) slice.blocks.push_back(i * 40 + sequence);
  return slice;
}

int run() {
  CHECK_CUDA(cudaFree(nullptr));
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreate(&stream));
  const DecoderWeights weights(kShape, 40 * kTableWidth), same_weights(kShape, 40 * kTableWidth);
  const gpu::StepLimits limits{512, 64, 16, 64};
  const auto tactics = [](const gpu::GemmShape&) {  // every way to compute products
    return gpu::GemmTactics{{8, gpu::GemmMethod::kSkinny, {}, 0}, {32, gpu::GemmMethod::kCublasLt, {}, 0}};
  };
  const auto describe = [&](gpu::OperationGraph& graph) { gpu::add_decoder(graph, kShape, limits, tactics); };
  gpu::TensorRtPlan plan(gpu::build_plan(describe));
  DirectGraph direct;
  describe(direct);
  const auto bind_plan = [&](const Binding& b) {
    plan.bind(b.name, b.data);
    if (b.varies)
      b.sizes.size() == 1 ? plan.set_sizes(b.name, {b.sizes[0]}) : plan.set_sizes(b.name, {b.sizes[0], b.sizes[1]});
  };
  const auto bind_direct = [&](const Binding& b) {
    b.sizes.size() == 1 ? direct.bind(b.name, b.data, {b.sizes[0]})
                        : direct.bind(b.name, b.data, {b.sizes[0], b.sizes[1]});
  };
  for (const Binding& b : weights.bindings) bind_plan(b);
  for (const Binding& b : same_weights.bindings) bind_direct(b);

  Report report;
  const std::vector<std::vector<Slice>> steps{
      {slice_of(0, 0, 40), slice_of(1, 0, 7)},                                                    // prompts
      {slice_of(0, 40, 1), slice_of(1, 7, 1), slice_of(2, 0, 90)},                                // both phases
      {slice_of(0, 41, 1), slice_of(1, 8, 1), slice_of(2, 90, 1)},                                // generation
      {slice_of(0, 42, 1), slice_of(3, 0, 33), slice_of(4, 0, 64), slice_of(5, 0, 2)}};
  for (size_t i = 0; i < steps.size(); ++i) {
    DecoderStep step(steps[i], kShape, kTableWidth);
    for (const Binding& b : step.bindings) bind_plan(b), bind_direct(b);
    Array<T> logits(step.logits.size());
    Array<int32_t> sampled(step.sampled.size());
    plan.bind(gpu::names::kLogits, logits.get());
    plan.bind(gpu::names::kSampled, sampled.get());
    direct.bind_output(gpu::names::kLogits, step.logits.get());
    direct.bind_output(gpu::names::kSampled, step.sampled.get());
    direct.prepare();
    direct.enqueue(stream);
    plan.enqueue(stream);
    CHECK_CUDA(cudaStreamSynchronize(stream));
    const auto ours = logits.host(), theirs = step.logits.host();
    size_t different = 0;
    for (size_t v = 0; v < ours.size(); ++v) {
      different += static_cast<float>(ours[v]) != static_cast<float>(theirs[v]);  // NaN, too, is different
    }
    report.compare("plan's logits", "step " + std::to_string(i), static_cast<double>(different), 0);
    report.compare("plan's tokens", "step " + std::to_string(i), sampled.host() == step.sampled.host() ? 0 : 1, 0);
  }
  return report.finish();
}

}  // namespace
}  // namespace inflight::gpu_test

int main() {
  try {
    return inflight::gpu_test::run();
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
