#include <algorithm>

#include "engine/tensorrt/kernels/logit_row.cuh"
#include "engine/tensorrt/kernels/sampling.h"

namespace inflight::gpu {
namespace {

constexpr float kLowestGreedyTemperature = 1e-5f;  // token_choice.cc's
constexpr int kMaxListed = 1024;                   // tokens of a top-k that is sorted
constexpr int kListedForMass = 512;                // tokens that top-p alone is first tried with
constexpr int kCapacity = 2048;                    // of the list

struct Shared {
  uint64_t list[kCapacity];
  uint64_t sums[kWarps];
  int histogram[256];
  int count, bin, rest, chosen;
};

__device__ uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// sampler.cc's random number in [0, 1).
__device__ double uniform(uint64_t seed, uint64_t count) {
  return static_cast<double>(mix(mix(seed) ^ count) >> 11) * 0x1p-53;
}

__device__ bool is_greedy(const SamplingRow& row) {
  return row.top_k == 1 || (row.top_k == 0 && row.top_p == 0.0f && row.min_p == 0.0f) ||
         row.temperature < kLowestGreedyTemperature;
}

// What a thread saw: the highest values of four disjoint parts of its share of the row.
struct Maxima {
  float parts[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  __device__ float highest() const { return fmaxf(fmaxf(parts[0], parts[1]), fmaxf(parts[2], parts[3])); }
};

template <class T>
__device__ Maxima maxima_of(const Row<T>& row) {
  Maxima maxima;
  row.template for_each<4>([&](int, int j, float value) { maxima.parts[j % 4] = fmaxf(maxima.parts[j % 4], value); });
  return maxima;
}

// Of all threads. NaN never is one: fmaxf passes it over.
__device__ float block_highest(const Maxima& maxima, Shared& shared) {
  return value_of(static_cast<Key>(block_max(key_of(maxima.highest()), shared.sums)));
}

// The lowest token with the row's highest value.
template <class T>
__device__ int argmax(const Row<T>& row, const Maxima& maxima, float highest, Shared& shared) {
  if (threadIdx.x == 0) shared.chosen = row.size;
  __syncthreads();
  if (maxima.highest() == highest) {  // few threads look again
    row.for_each([&](int token, int, float value) {
      if (value == highest) atomicMin(&shared.chosen, token);
    });
  }
  __syncthreads();
  return shared.chosen;
}

// The bin, from the top, in which the rank-th entry of the histogram lies; shared.rest becomes its rank in there.
__device__ int find_bin(int rank, Shared& shared) {
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x;
    int mine = 0;
    for (int i = 0; i < 8; ++i) mine += shared.histogram[255 - lane * 8 - i];
    int sum = mine;
    for (int offset = 1; offset < 32; offset *= 2) {
      const int up = __shfl_up_sync(kAllLanes, sum, offset);
      if (lane >= offset) sum += up;
    }
    int before = sum - mine;
    if (before < rank && rank <= sum) {
      int i = 0;
      for (; before + shared.histogram[255 - lane * 8 - i] < rank; ++i) before += shared.histogram[255 - lane * 8 - i];
      shared.bin = 255 - lane * 8 - i;
      shared.rest = rank - before;
    }
  }
  __syncthreads();
  return shared.bin;
}

// A value that at least `count` logits reach, and seldom many more: the count-th of the threads' 4,096 maxima, to 16
// bits. count <= kMaxListed.
__device__ float lower_bound(const Maxima& maxima, int count, Shared& shared) {
  Key keys[4];
  for (int i = 0; i < 4; ++i) keys[i] = key_of(maxima.parts[i]);
  int bins[2], rank = count;
  for (int level = 0; level < 2; ++level) {
    __syncthreads();
    if (threadIdx.x < 256) shared.histogram[threadIdx.x] = 0;
    __syncthreads();
    for (int i = 0; i < 4; ++i) {
      if (level == 0) atomicAdd(&shared.histogram[keys[i] >> 24], 1);
      if (level == 1 && keys[i] >> 24 == bins[0]) atomicAdd(&shared.histogram[keys[i] >> 16 & 255], 1);
    }
    bins[level] = find_bin(rank, shared);
    rank = shared.rest;
  }
  const Key bound = static_cast<Key>(bins[0]) << 24 | static_cast<Key>(bins[1]) << 16;
  return bound <= key_of(-INFINITY) ? -INFINITY : value_of(bound);
}

// Which logits are kept: those above the cut and, of those equal to it, the tokens up to `last_tie`.
struct Cut {
  Key key = 0;  // a short key
  int last_tie = 0x7fffffff;
  __device__ bool keeps(Key key_of_logit, int token) const {
    return key_of_logit > key || (key_of_logit == key && token <= last_tie);
  }
};

// The `count` first in order of likelihood, exactly.
template <class T>
__device__ __noinline__ Cut cut_after_count(const Row<T>& row, uint64_t count, Shared& shared) {
  Cut cut;
  uint64_t above;
  cut.key = search_key(row, count, [](int, float) { return uint64_t{1}; }, &above, shared.sums);
  cut.last_tie = search_token(
      row, count - above - 1, [&](int, float value) { return uint64_t{row.short_key(value) == cut.key}; }, shared.sums);
  return cut;
}

// The fewest in order of likelihood whose weights, as `amount` gives them, add up to `mass`.
template <class T, class Amount>
__device__ Cut cut_after_mass(const Row<T>& row, uint64_t mass, Amount amount, Shared& shared) {
  Cut cut;
  uint64_t above;
  cut.key = search_key(row, mass, amount, &above, shared.sums);
  // Equals have equal weights, where they have any.
  uint64_t tie = 0;
  row.for_each([&](int token, int, float value) {
    if (row.short_key(value) == cut.key) tie = max(tie, amount(token, value));
  });
  tie = block_max(tie, shared.sums);
  if (tie == 0) return cut;
  const uint64_t ties = (mass - above + tie - 1) / tie;
  cut.last_tie = search_token(
      row, ties - 1,
      [&](int token, float value) { return uint64_t{row.short_key(value) == cut.key && amount(token, value) > 0}; },
      shared.sums);
  return cut;
}

// Lists the logits that `keeps`, in no order. Returns their number, of which at most kCapacity are listed.
template <class T, class Keeps>
__device__ int list_logits(const Row<T>& row, Keeps keeps, Shared& shared) {
  __syncthreads();
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  row.template for_each<4>([&](int token, int, float value) {
    if (keeps(token, value)) {
      const int place = atomicAdd(&shared.count, 1);
      if (place < kCapacity) shared.list[place] = rank_of(key_of(value), token);
    }
  });
  __syncthreads();
  return shared.count;
}

// Sorts the first `count` entries of the list, descending (bitonic).
__device__ void sort_list(int count, Shared& shared) {
  int size = 32;
  while (size < count) size *= 2;
  for (int i = count + threadIdx.x; i < size; i += kThreads) shared.list[i] = 0;
  for (int run = 2; run <= size; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (int pair = threadIdx.x; pair < size / 2; pair += kThreads) {
        const int i = pair / distance * 2 * distance + pair % distance;
        const uint64_t a = shared.list[i], b = shared.list[i + distance];
        if (((i & run) == 0) == (a < b)) shared.list[i] = b, shared.list[i + distance] = a;
      }
    }
  }
  __syncthreads();
}

// Lists the `count` first logits in order of likelihood, sorted. count <= kMaxListed and <= the row's size.
template <class T>
__device__ void list_top(const Row<T>& row, const Maxima& maxima, int count, Shared& shared) {
  const float bound = lower_bound(maxima, count, shared);
  int listed = list_logits(row, [&](int, float value) { return value >= bound; }, shared);
  if (listed > kCapacity || listed < count) {  // a flat row, or one with NaN
    const Cut cut = cut_after_count(row, count, shared);
    listed = list_logits(row, [&](int token, float value) { return cut.keeps(row.short_key(value), token); }, shared);
  }
  sort_list(listed, shared);
}

// Inclusive sums of weight(i) for i of [0, count), two in a row for each thread: the first i at which they reach
// `mass`, or count - 1. The whole sum goes to *total.
template <class Weight>
__device__ int first_to_reach(int count, double mass, bool exceeds, Weight weight, Shared& shared, uint64_t* total) {
  const int i = 2 * threadIdx.x, lane = threadIdx.x % 32;
  const uint64_t a = i < count ? weight(i) : 0, b = i + 1 < count ? weight(i + 1) : 0;
  uint64_t sum = a + b;
  for (int offset = 1; offset < 32; offset *= 2) {
    const uint64_t up = __shfl_up_sync(kAllLanes, sum, offset);
    if (lane >= offset) sum += up;
  }
  __syncthreads();
  if (lane == 31) shared.sums[threadIdx.x / 32] = sum;
  if (threadIdx.x == 0) shared.chosen = count - 1;
  __syncthreads();
  uint64_t before = 0;
  *total = 0;
  for (int warp = 0; warp < (count + 63) / 64; ++warp) {
    if (warp < threadIdx.x / 32) before += shared.sums[warp];
    *total += shared.sums[warp];
  }
  sum += before;
  const auto reaches = [&](uint64_t s) {
    return exceeds ? static_cast<double>(s) > mass : static_cast<double>(s) >= mass;
  };
  if (i < count && reaches(sum - b)) atomicMin(&shared.chosen, i);
  if (i + 1 < count && reaches(sum)) atomicMin(&shared.chosen, i + 1);
  __syncthreads();
  return shared.chosen;
}

// Draws from the list's first `count` entries, which are sorted by likelihood, in ascending order of tokens.
__device__ int draw_from_list(int count, const Weighing& weighing, double random, Shared& shared) {
  __syncthreads();  // every thread has read what it needs of the list
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const uint64_t rank = shared.list[i];
    shared.list[i] = rank << 32 | rank >> 32;  // the complement of the token, then the key
  }
  __syncthreads();
  sort_list(count, shared);
  const auto weight = [&](int i) { return weighing.fixed(value_of(static_cast<Key>(shared.list[i]))); };
  uint64_t total;
  first_to_reach(count, 0, false, weight, shared, &total);
  uint64_t unused;
  int chosen = first_to_reach(count, random * static_cast<double>(total), true, weight, shared, &unused);
  return token_of_rank(shared.list[chosen] >> 32);
}

template <class T>
__device__ uint64_t total_mass(const Row<T>& row, const Weighing& weighing, float lowest, Shared& shared) {
  uint64_t mass = 0;
  row.for_each([&](int, int, float value) {
    if (value >= lowest) mass += weighing.fixed(value);
  });
  return block_sum(mass, shared.sums);
}

// Top-k that the list cannot hold, top-p of flat rows, and whole rows: searched, not sorted.
template <class T>
__device__ __noinline__ int draw_by_search(const Row<T>& row, const SamplingRow& settings, const Weighing& weighing,
                                           float lowest, Shared& shared) {
  Cut top_k, top_p;
  if (settings.top_k > 0 && settings.top_k < row.size) top_k = cut_after_count(row, settings.top_k, shared);
  const auto weight_in_top_k = [&](int token, float value) {
    return value >= lowest && top_k.keeps(row.short_key(value), token) ? weighing.fixed(value) : 0;
  };
  const auto mass_of = [&](auto amount) {
    uint64_t mass = 0;
    row.for_each([&](int token, int, float value) { mass += amount(token, value); });
    return block_sum(mass, shared.sums);
  };
  if (settings.top_p > 0.0f && settings.top_p < 1.0f) {
    const double mass = static_cast<double>(settings.top_p) * static_cast<double>(mass_of(weight_in_top_k));
    top_p = cut_after_mass(row, max(uint64_t{1}, static_cast<uint64_t>(ceil(mass))), weight_in_top_k, shared);
  }
  const auto weight = [&](int token, float value) {
    return top_p.keeps(row.short_key(value), token) ? weight_in_top_k(token, value) : 0;
  };
  const double target = uniform(settings.seed, settings.num_generated) * static_cast<double>(mass_of(weight));
  return search_token(row, static_cast<uint64_t>(target), weight, shared.sums);
}

template <class T>
__device__ int draw(const Row<T>& row, const SamplingRow& settings, const Maxima& maxima, float highest,
                    Shared& shared) {
  const Weighing weighing{highest, 1.0f / settings.temperature};
  const float lowest = settings.min_p > 0.0f
                           ? static_cast<float>(highest + log(double{settings.min_p}) * settings.temperature)
                           : -INFINITY;
  const bool cuts_mass = settings.top_p > 0.0f && settings.top_p < 1.0f;
  const int top_k = min(settings.top_k, row.size);
  const auto weight = [&](int i) {
    const float value = value_of(key_of_rank(shared.list[i]));
    return value >= lowest ? weighing.fixed(value) : 0;
  };
  const double random = uniform(settings.seed, settings.num_generated);
  int listed = 0;
  uint64_t total;
  if (top_k > 0 && top_k <= kMaxListed) {
    listed = top_k;
    list_top(row, maxima, listed, shared);
    first_to_reach(listed, 0, false, weight, shared, &total);
  } else if (top_k == 0 && cuts_mass) {
    const float bound = lower_bound(maxima, min(kListedForMass, row.size), shared);
    uint64_t mass = 0;
    listed = list_logits(
        row,
        [&](int, float value) {
          if (value >= lowest) mass += weighing.fixed(value);
          return value >= bound;
        },
        shared);
    total = block_sum(mass, shared.sums);
    if (listed > kCapacity) return draw_by_search(row, settings, weighing, lowest, shared);
    sort_list(listed, shared);
  } else {
    return draw_by_search(row, settings, weighing, lowest, shared);
  }
  if (cuts_mass) {
    uint64_t listed_mass;
    const double mass = static_cast<double>(settings.top_p) * static_cast<double>(total);
    const int last = first_to_reach(listed, mass, false, weight, shared, &listed_mass);
    if (static_cast<double>(listed_mass) < mass) return draw_by_search(row, settings, weighing, lowest, shared);
    listed = last + 1;
  }
  // What min-p leaves out lies at the end of the list.
  const Key lowest_key = key_of(lowest);
  while (listed > 1 && key_of_rank(shared.list[listed - 1]) < lowest_key) --listed;
  return draw_from_list(listed, weighing, random, shared);
}

struct LogSum {
  float highest;
  double log_sum;
};

template <class T>
__device__ LogSum log_sum_of(const Row<T>& row, float highest, Shared& shared) {
  if (!isfinite(highest)) return {highest, 0.0};
  const uint64_t mass = total_mass(row, Weighing{highest, 1.0f}, -INFINITY, shared);
  return {highest, log(static_cast<double>(mass) / kOne)};
}

__device__ float log_prob(float logit, const LogSum& sum) {
  if (!isfinite(sum.highest)) return sum.highest > 0.0f && logit == sum.highest ? 0.0f : -INFINITY;
  return static_cast<float>(logit - sum.highest - sum.log_sum);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(const T* logits, int vocab_size, const SamplingRow* rows, int32_t* tokens) {
  __shared__ Shared shared;
  const Row<T> row{logits + size_t{blockIdx.x} * vocab_size, vocab_size};
  const SamplingRow settings = rows[blockIdx.x];
  const Maxima maxima = maxima_of(row);
  const float highest = block_highest(maxima, shared);
  int token;
  if (highest == -INFINITY) {
    token = settings.end_id;
  } else if (is_greedy(settings) || highest == INFINITY) {
    token = argmax(row, maxima, highest, shared);
  } else {
    token = draw(row, settings, maxima, highest, shared);
  }
  if (threadIdx.x == 0) tokens[blockIdx.x] = token;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    log_prob_kernel(const T* logits, int vocab_size, const int32_t* tokens, float* log_probs) {
  __shared__ Shared shared;
  const Row<T> row{logits + size_t{blockIdx.x} * vocab_size, vocab_size};
  const LogSum sum = log_sum_of(row, block_highest(maxima_of(row), shared), shared);
  if (threadIdx.x == 0) log_probs[blockIdx.x] = log_prob(row[tokens[blockIdx.x]], sum);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    top_log_probs_kernel(const T* logits, int vocab_size, int count, int32_t* tokens, float* log_probs) {
  __shared__ Shared shared;
  const Row<T> row{logits + size_t{blockIdx.x} * vocab_size, vocab_size};
  const Maxima maxima = maxima_of(row);
  const float highest = block_highest(maxima, shared);
  const LogSum sum = log_sum_of(row, highest, shared);
  list_top(row, maxima, count, shared);
  if (threadIdx.x < count) {
    const uint64_t rank = shared.list[threadIdx.x];
    tokens[blockIdx.x * count + threadIdx.x] = token_of_rank(rank);
    log_probs[blockIdx.x * count + threadIdx.x] = log_prob(value_of(key_of_rank(rank)), sum);
  }
}

__device__ float penalized(float score, int generated_count, const LogitAdjustments& a) {
  score = score > 0.0f ? score / a.repetition_penalty : score * a.repetition_penalty;
  if (generated_count > 0) {
    score = __fsub_rn(
        score, __fadd_rn(__fmul_rn(a.frequency_penalty, static_cast<float>(generated_count)), a.presence_penalty));
  }
  return score;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adjust_kernel(const T* logits, int vocab_size, const LogitAdjustments* adjustments, float* adjusted) {
  const size_t offset = size_t{blockIdx.x} * vocab_size;
  const LogitAdjustments a = adjustments[blockIdx.x];
  float* scores = adjusted + offset;
  for (int token = threadIdx.x; token < vocab_size; token += kThreads) {
    const float score = static_cast<float>(logits[offset + token]);
    scores[token] = a.bias ? score + a.bias[token] : score;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < a.num_seen; i += kThreads) {
    const int token = a.seen[i];
    scores[token] = penalized(scores[token], a.seen_counts[i], a);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < a.num_banned; i += kThreads) scores[a.banned[i]] = -INFINITY;
  if (a.mask == nullptr) return;
  for (int token = threadIdx.x; token < vocab_size; token += kThreads) {
    if (!(a.mask[token / 32] >> (token % 32) & 1)) scores[token] = -INFINITY;
  }
}

bool has_valid_rows(const void* logits, LogitType type, int32_t vocab_size) {
  const int size = type == LogitType::kFloat32 ? 4 : 2;
  return vocab_size > 0 && vocab_size <= kMaxVocabulary && vocab_size * size % 16 == 0 &&
         reinterpret_cast<uintptr_t>(logits) % 16 == 0;
}

// call(a null pointer to the type's element)
template <class Call>
void with_type(LogitType type, Call call) {
  switch (type) {
    case LogitType::kBFloat16: return call(static_cast<const __nv_bfloat16*>(nullptr));
    case LogitType::kFloat16: return call(static_cast<const __half*>(nullptr));
    case LogitType::kFloat32: return call(static_cast<const float*>(nullptr));
  }
}

}  // namespace

cudaError_t adjust_logits(const void* logits, LogitType type, int32_t rows, int32_t vocab_size,
                          const LogitAdjustments* adjustments, float* adjusted, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  with_type(type, [&]<class T>(const T*) {
    adjust_kernel<<<rows, kThreads, 0, stream>>>(static_cast<const T*>(logits), vocab_size, adjustments, adjusted);
  });
  return cudaGetLastError();
}

cudaError_t sample_tokens(const void* logits, LogitType type, int32_t rows, int32_t vocab_size,
                          const SamplingRow* settings, int32_t* tokens, cudaStream_t stream) {
  if (!has_valid_rows(logits, type, vocab_size)) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  with_type(type, [&]<class T>(const T*) {
    sample_kernel<<<rows, kThreads, 0, stream>>>(static_cast<const T*>(logits), vocab_size, settings, tokens);
  });
  return cudaGetLastError();
}

cudaError_t token_log_probs(const void* logits, LogitType type, int32_t rows, int32_t vocab_size, const int32_t* tokens,
                            float* log_probs, cudaStream_t stream) {
  if (!has_valid_rows(logits, type, vocab_size)) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  with_type(type, [&]<class T>(const T*) {
    log_prob_kernel<<<rows, kThreads, 0, stream>>>(static_cast<const T*>(logits), vocab_size, tokens, log_probs);
  });
  return cudaGetLastError();
}

cudaError_t top_log_probs(const void* logits, LogitType type, int32_t rows, int32_t vocab_size, int32_t count,
                          int32_t* tokens, float* log_probs, cudaStream_t stream) {
  if (!has_valid_rows(logits, type, vocab_size) || count < 1 || count > std::min(kMaxTopLogProbs, vocab_size)) {
    return cudaErrorInvalidValue;
  }
  if (rows == 0) return cudaSuccess;
  with_type(type, [&]<class T>(const T*) {
    top_log_probs_kernel<<<rows, kThreads, 0, stream>>>(static_cast<const T*>(logits), vocab_size, count, tokens,
                                                        log_probs);
  });
  return cudaGetLastError();
}

}  // namespace inflight::gpu
