// Generation and context attention on a GPU against float64.

#include <numeric>

#include "combine_attention.h"
#include "context_attention.h"
#include "device.cuh"
#include "generation_attention.h"
#include "paged_cache.cuh"
#include "tests.h"

namespace inflight::gpu_test {
namespace {

using namespace kernels;

constexpr float kSoftCap = 5.0f;

enum class Scores { kPlain, kSoftCap, kAlibi };

struct Case {
  int query_heads, kv_heads, head_size;
  Scores scores;
  int window, sinks;
  float scale = 0.1f;

  std::string label() const {
    const char* names[] = {"plain", "soft cap", "alibi"};
    return std::to_string(query_heads) + "/" + std::to_string(kv_heads) + " of " + std::to_string(head_size) + " " +
           names[static_cast<int>(scores)] + " window " + std::to_string(window) + "+" + std::to_string(sinks);
  }
};

// One block a (token, head); the scores of all keys in shared memory.
template <class T, class C>
__global__ void reference_attention(const T* queries, const C* keys, const C* values, const int32_t* table,
                                    int table_stride, int64_t block_stride, int token_stride, int block_shift,
                                    const int32_t* sequences, const int32_t* positions, const float* slopes, Case c,
                                    double* output) {
  extern __shared__ double scores[];
  __shared__ double sum;
  const int token = blockIdx.x, head = blockIdx.y, position = positions[token], n = position + 1;
  const int kv_head = head / (c.query_heads / c.kv_heads);
  const T* q = queries + (size_t{1} * token * c.query_heads + head) * c.head_size;
  const auto place = [&](int t) {
    const int64_t block = table[sequences[token] * table_stride + (t >> block_shift)];
    return block * block_stride + int64_t{t & ((1 << block_shift) - 1)} * token_stride + kv_head * c.head_size;
  };
  for (int t = threadIdx.x; t < n; t += blockDim.x) {
    double s = 0;
    const C* k = keys + place(t);
    for (int i = 0; i < c.head_size; ++i) s += double(float(q[i])) * double(float(k[i]));
    s *= c.scale;
    if (c.scores == Scores::kSoftCap) s = kSoftCap * tanh(s / kSoftCap);
    if (c.scores == Scores::kAlibi) s += slopes[head] * (t - position);
    const bool sees = c.window == 0 || t > position - c.window || t < c.sinks;
    scores[t] = sees ? s : -INFINITY;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double highest = -INFINITY;
    for (int t = 0; t < n; ++t) highest = fmax(highest, scores[t]);
    sum = 0;
    for (int t = 0; t < n; ++t) sum += scores[t] = exp(scores[t] - highest);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < c.head_size; i += blockDim.x) {
    double v = 0;
    for (int t = 0; t < n; ++t) {
      if (scores[t] != 0) v += scores[t] * double(float(values[place(t) + i]));
    }
    output[(size_t{1} * token * c.query_heads + head) * c.head_size + i] = v / sum;
  }
}

// The chunks' tokens are the last ones of their sequences.
template <class T, class C>
struct Batch {
  PagedCache<C> cache;
  std::vector<int32_t> first;
  Array<T> queries;
  Array<float> slopes;
  Array<double> reference;

  Batch(const Case& c, std::vector<int32_t> lengths, const std::vector<int32_t>& chunks, int block_shift)
      : cache(lengths, c.kv_heads, c.head_size, block_shift, c.head_size + c.window),
        first(1, 0),
        queries(normal<T>(size_t{1} * std::accumulate(chunks.begin(), chunks.end(), 0) * c.query_heads * c.head_size,
                          1.0f, 77 + c.head_size)),
        slopes(normal<float>(c.query_heads, 0.05f, 5)),
        reference(queries.size()) {
    std::vector<int32_t> sequences, positions;
    for (size_t s = 0; s < chunks.size(); ++s) {
      first.push_back(first.back() + chunks[s]);
      for (int i = 0; i < chunks[s]; ++i) {
        sequences.push_back(static_cast<int32_t>(s));
        positions.push_back(lengths[s] - chunks[s] + i);
      }
    }
    const Array<int32_t> device_sequences(sequences), device_positions(positions);
    const int shared = (*std::ranges::max_element(lengths) + 512) * 8;  // the compiler reads ahead
    CHECK_CUDA(cudaFuncSetAttribute(reference_attention<T, C>, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 << 10));
    reference_attention<<<dim3(first.back(), c.query_heads), 128, shared>>>(
        queries.get(), cache.keys.get(), cache.values.get(), cache.table.get(), cache.table_stride,
        cache.block_stride(), cache.token_stride(), block_shift, device_sequences.get(), device_positions.get(),
        slopes.get(), c, reference.get());
    CHECK_CUDA(cudaDeviceSynchronize());
  }
};

template <class T>
constexpr double kTolerance = std::is_same_v<T, __half> ? 2e-3 : 8e-3;

template <class T, class C>
void test_generation(Report& report, const Case& c, const std::vector<int32_t>& lengths, int splits, int block_shift) {
  const int sequences = static_cast<int>(lengths.size());
  Batch<T, C> batch(c, lengths, std::vector<int32_t>(lengths.size(), 1), block_shift);
  Array<T> output(batch.queries.size());
  Array<float> parts(batch.queries.size() * splits), sums(size_t{1} * sequences * c.query_heads * splits);
  CHECK_LAUNCH(launch(GenerationAttention{.dtype = data_type<T>(),
                                          .cache = data_type<C>(),
                                          .head_size = c.head_size,
                                          .scores = static_cast<GenerationAttentionScores>(c.scores),
                                          .output = output.get(),
                                          .partial_output = parts.get(),
                                          .partial_sum = sums.get(),
                                          .queries = batch.queries.get(),
                                          .key_cache = batch.cache.keys.get(),
                                          .value_cache = batch.cache.values.get(),
                                          .block_table = batch.cache.table.get(),
                                          .lengths = batch.cache.lengths.get(),
                                          .slopes = batch.slopes.get(),
                                          .table_stride = batch.cache.table_stride,
                                          .block_stride = batch.cache.block_stride(),
                                          .token_stride = batch.cache.token_stride(),
                                          .head_stride = c.head_size,
                                          .block_shift = block_shift,
                                          .sequences = sequences,
                                          .query_heads = c.query_heads,
                                          .kv_heads = c.kv_heads,
                                          .splits = splits,
                                          .window = c.window,
                                          .sinks = c.sinks,
                                          .scale = c.scale,
                                          .soft_cap = kSoftCap,
                                          .value_scale = 1.0f},
                      nullptr));
  if (splits > 1) {
    CHECK_LAUNCH(launch(CombineAttention{.dtype = data_type<T>(),
                                         .head_size = c.head_size,
                                         .output = output.get(),
                                         .partial_output = parts.get(),
                                         .partial_sum = sums.get(),
                                         .rows = sequences * c.query_heads,
                                         .splits = splits},
                        nullptr));
  }
  report.compare("generation_attention", c.label() + " splits " + std::to_string(splits),
                 relative_error(output.get(), batch.reference), kTolerance<T>);
}

template <class T, class C>
void test_context(Report& report, const Case& c, const std::vector<int32_t>& lengths,
                  const std::vector<int32_t>& chunks, int block_shift) {
  Batch<T, C> batch(c, lengths, chunks, block_shift);
  const Array<int32_t> first(batch.first);
  Array<T> output(batch.queries.size());
  CHECK_LAUNCH(launch(ContextAttention{.dtype = data_type<T>(),
                                       .cache = data_type<C>(),
                                       .head_size = c.head_size,
                                       .scores = static_cast<ContextAttentionScores>(c.scores),
                                       .output = output.get(),
                                       .queries = batch.queries.get(),
                                       .first_query = first.get(),
                                       .key_cache = batch.cache.keys.get(),
                                       .value_cache = batch.cache.values.get(),
                                       .block_table = batch.cache.table.get(),
                                       .lengths = batch.cache.lengths.get(),
                                       .slopes = batch.slopes.get(),
                                       .table_stride = batch.cache.table_stride,
                                       .block_stride = batch.cache.block_stride(),
                                       .token_stride = batch.cache.token_stride(),
                                       .head_stride = c.head_size,
                                       .block_shift = block_shift,
                                       .sequences = static_cast<int32_t>(chunks.size()),
                                       .longest_chunk = *std::ranges::max_element(chunks),
                                       .query_heads = c.query_heads,
                                       .kv_heads = c.kv_heads,
                                       .window = c.window,
                                       .sinks = c.sinks,
                                       .scale = c.scale,
                                       .soft_cap = kSoftCap,
                                       .value_scale = 1.0f},
                      nullptr));
  report.compare("context_attention", c.label() + " chunks of " + std::to_string(chunks[0]),
                 relative_error(output.get(), batch.reference), kTolerance<T>);
}

template <class T>
void test_dtype(Report& report) {
  const std::pair<int, int> windows[] = {{0, 0}, {100, 0}, {33, 4}, {200, 70}};
  for (const int head_size : {64, 80, 96, 128, 256}) {
    for (const auto [query_heads, kv_heads] : {std::pair{9, 3}, {8, 1}, {4, 4}, {40, 2}}) {
      for (const Scores scores : {Scores::kPlain, Scores::kSoftCap, Scores::kAlibi}) {
        for (const auto [window, sinks] : windows) {
          const Case c{query_heads, kv_heads, head_size, scores, window, sinks};
          for (const int splits : {1, 3, 16}) test_generation<T, T>(report, c, {1, 700, 64, 65, 1030}, splits, 5);
          test_context<T, T>(report, c, {150, 700, 65, 1, 90}, {150, 200, 65, 1, 30}, 4);
        }
      }
    }
    const Case c{8, 2, head_size, Scores::kPlain, 0, 0};
    test_generation<T, __nv_fp8_e4m3>(report, c, {5, 700, 1030}, 1, 6);
    test_generation<T, __nv_fp8_e4m3>(report, c, {5, 700, 1030}, 7, 6);
    test_context<T, __nv_fp8_e4m3>(report, c, {150, 700}, {150, 200}, 6);
  }
  test_generation<T, T>(report, {32, 8, 128, Scores::kPlain, 0, 0}, {16384, 3}, 64, 6);
  test_generation<T, T>(report, {32, 8, 128, Scores::kPlain, 0, 0}, std::vector<int32_t>(256, 257), 1, 6);
  test_context<T, T>(report, {32, 8, 128, Scores::kPlain, 0, 0}, {2048}, {2048}, 6);
  test_context<T, T>(report, {32, 8, 128, Scores::kPlain, 0, 0}, {2100, 700}, {33, 64}, 6);
}

}  // namespace

void test_attention(Report& report) {
  test_dtype<__nv_bfloat16>(report);
  test_dtype<__half>(report);
}

}  // namespace inflight::gpu_test
