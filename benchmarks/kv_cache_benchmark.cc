// Time and allocations of the KV cache's bookkeeping, without an engine: sequences with a shared prompt of 1,000 tokens
// and 500 of their own come to 2,000 tokens each, in a cache that is full of ended sequences' blocks, so that every new
// block evicts another one (to the host tier, with --host).
//
//   kv_cache_benchmark [--sequences N] [--window TOKENS] [--host]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>
#include <vector>

#include "batch_manager/kv_cache.h"

using namespace inflight;
using Clock = std::chrono::steady_clock;

static uint64_t num_allocations = 0;

void* operator new(size_t size) {
  ++num_allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

constexpr int32_t kTokensPerBlock = 32;
constexpr int32_t kSharedTokens = 1000;
constexpr int32_t kPromptTokens = 1500;
constexpr int32_t kMaxTokens = 2000;
constexpr int32_t kRounds = 4;  // the first ones fill the cache

struct Sequence {
  std::vector<int32_t> tokens;
  BlockList blocks;
  PrefixKey key(int32_t num_tokens) const { return {std::span(tokens).first(num_tokens)}; }
};

struct Measurement {
  std::vector<double> microseconds = {};
  uint64_t allocations = 0;

  template <class Operation>
  void measure(Operation operation) {
    const uint64_t allocations_before = num_allocations;
    const auto start = Clock::now();
    operation();
    const std::chrono::duration<double, std::micro> elapsed = Clock::now() - start;
    allocations += num_allocations - allocations_before;
    microseconds.push_back(elapsed.count());
  }

  void print(const char* name) {
    std::sort(microseconds.begin(), microseconds.end());
    double sum = 0;
    for (double value : microseconds) sum += value;
    const size_t count = microseconds.size();
    std::printf("%-28s %9.2f us on average, %9.2f median, %9.2f 99th percentile, %.4f allocations\n", name, sum / count,
                microseconds[count / 2], microseconds[count * 99 / 100], static_cast<double>(allocations) / count);
  }
};

}  // namespace

int main(int argc, char** argv) {
  int32_t num_sequences = 256;
  KvCacheOptions options{.tokens_per_block = kTokensPerBlock, .enable_reuse = true};
  bool has_host = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--host") == 0) {
      has_host = true;
    } else if (std::strcmp(argv[i], "--sequences") == 0 && i + 1 < argc) {
      num_sequences = std::atoi(argv[++i]);
    } else if (std::strcmp(argv[i], "--window") == 0 && i + 1 < argc) {
      options.attention_window = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: kv_cache_benchmark [--sequences N] [--window TOKENS] [--host]\n");
      return 1;
    }
  }
  options.num_blocks = 2 * num_sequences * (kMaxTokens / kTokensPerBlock + 1);
  if (has_host) options.num_host_blocks = options.num_blocks;
  KvCache cache(options);

  std::mt19937 random(1);
  std::vector<Sequence> sequences(num_sequences);
  Measurement admissions, contexts, steps, releases;
  for (int32_t round = 0; round < kRounds; ++round) {
    std::vector<int32_t> shared(kSharedTokens);
    for (int32_t& token : shared) token = random() % 100000;
    for (Sequence& sequence : sequences) {
      sequence.tokens = shared;
      while (sequence.tokens.size() < kMaxTokens) sequence.tokens.push_back(random() % 100000);
    }
    if (round == kRounds - 1) admissions = contexts = steps = releases = {};
    for (Sequence& sequence : sequences) {
      admissions.measure([&] {
        const int32_t num_blocks = cache.peak_blocks(kMaxTokens, kPromptTokens);
        if (!cache.admit(sequence.blocks, sequence.key(kPromptTokens), num_blocks, true)) std::abort();
      });
      contexts.measure([&] {
        if (!cache.extend(sequence.blocks, kPromptTokens)) std::abort();
        cache.commit(sequence.blocks, sequence.key(kPromptTokens));
      });
      cache.take_copies();
    }
    for (int32_t length = kPromptTokens + 1; length < kMaxTokens; ++length) {
      steps.measure([&] {
        for (Sequence& sequence : sequences) {
          if (!cache.extend(sequence.blocks, length)) std::abort();
        }
        cache.take_copies();
        for (Sequence& sequence : sequences) cache.commit(sequence.blocks, sequence.key(length));
      });
    }
    for (Sequence& sequence : sequences) {
      releases.measure([&] { cache.release(sequence.blocks, sequence.key(kMaxTokens - 1), kPromptTokens, {}); });
    }
  }
  std::printf("%d sequences, %d blocks, %d host blocks, attention window %d\n", num_sequences, options.num_blocks,
              options.num_host_blocks, options.attention_window);
  admissions.print("admit");
  contexts.print("extend, commit a prompt");
  steps.print("step of all sequences");
  releases.print("release");
  return 0;
}
