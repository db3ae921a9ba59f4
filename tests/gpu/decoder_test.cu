// Whole steps of a small decoder against float64: prompts in chunks beside generation, over a paged cache.

#include "decoder_step.h"
#include "direct_graph.h"
#include "tests.h"

namespace inflight::gpu_test {
namespace {

constexpr gpu::DecoderShape kShape{.type = gpu::ElementType::kBFloat16,
                                   .hidden_size = 256,
                                   .intermediate_size = 512,
                                   .layers = 3,
                                   .query_heads = 4,
                                   .kv_heads = 2,
                                   .head_size = 64,
                                   .vocab_size = 1024,
                                   .positions = 256,
                                   .norm_epsilon = 1e-5f,
                                   .tokens_per_block = 16};
constexpr int32_t kMaxBlocks = 16;

using Row = std::vector<double>;

// The decoder on the CPU in float64, a sequence at a time, from its first token on.
class Reference {
 public:
  explicit Reference(const DecoderWeights& weights) {
    for (const Binding& binding : weights.bindings) {
      size_t count = 1;
      for (const int64_t size : binding.sizes) count *= size;
      const bool is_vector = binding.sizes.size() == 1 || binding.name == gpu::names::kCosSin;
      if (binding.name.ends_with("_cache")) continue;
      Row& row = tensors_[binding.name];
      if (is_vector) {
        std::vector<float> host(count);
        CHECK_CUDA(cudaMemcpy(host.data(), binding.data, count * sizeof(float), cudaMemcpyDeviceToHost));
        row.assign(host.begin(), host.end());
      } else {
        std::vector<T> host(count);
        CHECK_CUDA(cudaMemcpy(host.data(), binding.data, count * sizeof(T), cudaMemcpyDeviceToHost));
        for (const T value : host) row.push_back(static_cast<float>(value));
      }
    }
  }

  // Logits after the last of these tokens.
  Row logits(const std::vector<int32_t>& tokens) const {
    using namespace gpu::names;
    std::vector<Row> hidden;
    for (const int32_t token : tokens) {
      const Row& table = tensors_.at(kEmbedding);
      hidden.emplace_back(table.begin() + token * kShape.hidden_size, table.begin() + (token + 1) * kShape.hidden_size);
    }
    for (int32_t layer = 0; layer < kShape.layers; ++layer) {
      const auto tensor = [&](const char* name) -> const Row& { return tensors_.at(gpu::layer_name(layer, name)); };
      std::vector<Row> qkv;
      for (size_t t = 0; t < tokens.size(); ++t) {
        qkv.push_back(product(tensor(kQkv), normalized(hidden[t], tensor(kAttentionNorm))));
        rotate(qkv.back(), static_cast<int32_t>(t));
      }
      for (size_t t = 0; t < tokens.size(); ++t) {
        add(hidden[t], product(tensor(kAttentionOutput), attend(qkv, t)));
        const Row gate_up = product(tensor(kGateUp), normalized(hidden[t], tensor(kMlpNorm)));
        Row active(kShape.intermediate_size);
        for (size_t i = 0; i < active.size(); ++i) {
          active[i] = gate_up[i] / (1 + std::exp(-gate_up[i])) * gate_up[active.size() + i];
        }
        add(hidden[t], product(tensor(kDown), active));
      }
    }
    return product(tensors_.at(kLmHead), normalized(hidden.back(), tensors_.at(kFinalNorm)));
  }

 private:
  static Row product(const Row& weight, const Row& x) {
    Row y(weight.size() / x.size());
    for (size_t i = 0; i < y.size(); ++i) {
      for (size_t k = 0; k < x.size(); ++k) y[i] += weight[i * x.size() + k] * x[k];
    }
    return y;
  }
  static Row normalized(const Row& x, const Row& weight) {
    double square = 0;
    for (const double value : x) square += value * value;
    Row y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] / std::sqrt(square / x.size() + kShape.norm_epsilon) * weight[i];
    return y;
  }
  static void add(Row& to, const Row& what) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += what[i];
  }
  void rotate(Row& qkv, int32_t position) const {
    const int32_t size = kShape.head_size, half = size / 2;
    const double* const angles = tensors_.at(gpu::names::kCosSin).data() + size_t{1} * position * size;
    for (int32_t head = 0; head < kShape.query_heads + kShape.kv_heads; ++head) {
      for (int32_t i = 0; i < half; ++i) {
        double &a = qkv[head * size + i], &b = qkv[head * size + half + i];
        const double x = a, y = b;
        a = x * angles[i] - y * angles[half + i];
        b = y * angles[i] + x * angles[half + i];
      }
    }
  }
  static Row attend(const std::vector<Row>& qkv, size_t token) {
    const int32_t size = kShape.head_size;
    Row output(size_t{1} * kShape.query_heads * size);
    for (int32_t head = 0; head < kShape.query_heads; ++head) {
      const int32_t kv_head = head / (kShape.query_heads / kShape.kv_heads);
      const size_t key = size_t{1} * (kShape.query_heads + kv_head) * size,
                   value = key + size_t{1} * kShape.kv_heads * size;
      Row weights;
      double sum = 0;
      for (size_t t = 0; t <= token; ++t) {
        double score = 0;
        for (int32_t i = 0; i < size; ++i) score += qkv[token][head * size + i] * qkv[t][key + i];
        weights.push_back(std::exp(score / std::sqrt(double(size))));
        sum += weights.back();
      }
      for (size_t t = 0; t <= token; ++t) {
        for (int32_t i = 0; i < size; ++i) output[head * size + i] += weights[t] / sum * qkv[t][value + i];
      }
    }
    return output;
  }

  std::map<std::string, Row> tensors_;
};

struct Sequence {
  std::vector<int32_t> tokens;
  std::vector<int32_t> blocks;
  int32_t done = 0;
};

}  // namespace

void test_decoder(Report& report) {
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreate(&stream));
  const DecoderWeights weights(kShape, 64);
  const Reference reference(weights);
  DirectGraph graph;
  const gpu::StepLimits limits{256, 16, kMaxBlocks, 16};
  gpu::add_decoder(graph, kShape, limits, [](const gpu::GemmShape&) { return gpu::GemmTactics(); });
  for (const Binding& b : weights.bindings) {
    b.sizes.size() == 1 ? graph.bind(b.name, b.data, {b.sizes[0]})
                        : graph.bind(b.name, b.data, {b.sizes[0], b.sizes[1]});
  }
  std::vector<Sequence> sequences(5);
  const int32_t prompts[] = {40, 7, 90, 2, 33};
  for (size_t s = 0; s < sequences.size(); ++s) {
    for (int32_t i = 0; i < prompts[s]; ++i) {
      sequences[s].tokens.push_back(static_cast<int32_t>(mixed(100 * s + i) % kShape.vocab_size));
    }
    for (int32_t i = 0; i < kMaxBlocks / 2; ++i) sequences[s].blocks.push_back(static_cast<int32_t>(i * 5 + s));
  }
  // Chunks of at most 32 tokens, two prompts a step; what is past its prompt generates.
  for (int32_t number = 0; number < 12; ++number) {
    std::vector<Slice> slices;
    std::vector<size_t> order;
    const auto take = [&](size_t s, int32_t count) {
      Sequence& sequence = sequences[s];
      slices.push_back({{sequence.tokens.begin() + sequence.done, sequence.tokens.begin() + sequence.done + count},
                        sequence.done,
                        sequence.blocks});
      sequence.done += count;
      order.push_back(s);
    };
    const auto left = [&](size_t s) { return static_cast<int32_t>(sequences[s].tokens.size()) - sequences[s].done; };
    for (size_t s = 0; s < sequences.size(); ++s) {
      if (left(s) == 1) take(s, 1);
    }
    for (size_t s = 0, chunks = 0; s < sequences.size() && chunks < 2; ++s) {
      if (left(s) > 1) take(s, std::min(left(s) == 33 ? 31 : left(s), 32)), ++chunks;
    }
    if (slices.empty()) break;
    DecoderStep step(slices, kShape, kMaxBlocks);
    for (const Binding& b : step.bindings) {
      b.sizes.size() == 1 ? graph.bind(b.name, b.data, {b.sizes[0]})
                          : graph.bind(b.name, b.data, {b.sizes[0], b.sizes[1]});
    }
    graph.bind_output(gpu::names::kLogits, step.logits.get());
    graph.bind_output(gpu::names::kSampled, step.sampled.get());
    graph.prepare();
    graph.enqueue(stream);
    CHECK_CUDA(cudaStreamSynchronize(stream));
    const auto sampled = step.sampled.host();
    const auto logits = step.logits.host();
    for (size_t i = 0; i < slices.size(); ++i) {
      Sequence& sequence = sequences[order[i]];
      const Row expected = reference.logits({sequence.tokens.begin(), sequence.tokens.begin() + sequence.done});
      double difference = 0, norm = 0;
      for (size_t v = 0; v < expected.size(); ++v) {
        const double d = static_cast<float>(logits[i * expected.size() + v]) - expected[v];
        difference += d * d;
        norm += expected[v] * expected[v];
      }
      const std::string what = "step " + std::to_string(number) + " sequence " + std::to_string(order[i]);
      report.compare("decoder logits", what, std::sqrt(difference / norm), 2e-2);
      const auto best = std::ranges::max_element(expected) - expected.begin();
      Row others = expected;
      others[best] = -1e30;
      if (expected[best] - *std::ranges::max_element(others) > 0.1) {
        report.compare("decoder greedy tokens", what, sampled[i] == best ? 0 : 1, 0);
      }
      if (left(order[i]) == 0) sequence.tokens.push_back(sampled[i]);
    }
  }
  CHECK_CUDA(cudaStreamDestroy(stream));
}

}  // namespace inflight::gpu_test
