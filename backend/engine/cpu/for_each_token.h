#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "common/rounding.h"
#include "common/thread_pool.h"

namespace inflight::cpu {

// Tokens in one part for each thread, so that what a thread has written is in its own caches when it reads it again.
// Parts begin at multiples of 16; the last ones may be empty.
class TokenParts {
 public:
  static constexpr int64_t kMaxParts = 16;

  TokenParts(int64_t tokens, const ThreadPool& pool)
      : tokens_(tokens),
        count_(std::min<int64_t>(pool.size(), kMaxParts)),
        tokens_per_part_(round_up(divide_up(tokens, count_), 16)) {}

  int64_t count() const { return count_; }
  int64_t tokens_per_part() const { return tokens_per_part_; }
  int64_t begin(int64_t part) const { return std::min(tokens_, part * tokens_per_part_); }
  int64_t end(int64_t part) const { return begin(part + 1); }

 private:
  int64_t tokens_;
  int64_t count_;
  int64_t tokens_per_part_;
};

// body(part, task, thread) for every task in [0, tasks_per_part) of every part: a thread does those of its own part
// first, and then helps with the others.
template <class Body>
void for_each_part(ThreadPool& pool, const TokenParts& parts, int64_t tasks_per_part, const Body& body) {
  struct alignas(64) Counter {
    std::atomic<int64_t> next{0};
  };
  Counter counters[TokenParts::kMaxParts];
  pool.parallel_for(pool.size(), [&](int64_t, int thread) {
    for (int64_t i = 0; i < parts.count(); ++i) {
      const int64_t part = (thread + i) % parts.count();
      for (;;) {
        const int64_t task = counters[part].next.fetch_add(1, std::memory_order_relaxed);
        if (task >= tasks_per_part) break;
        body(part, task, thread);
      }
    }
  });
}

// body(token) for every token in [0, tokens), on as many threads as that is worth.
template <class Body>
void for_each_token(ThreadPool& pool, int64_t tokens, const Body& body) {
  constexpr int64_t kTokensPerTask = 4;
  if (tokens <= kTokensPerTask) {
    for (int64_t token = 0; token < tokens; ++token) body(token);
    return;
  }
  const TokenParts parts(tokens, pool);
  for_each_part(pool, parts, divide_up(parts.tokens_per_part(), kTokensPerTask), [&](int64_t part, int64_t task, int) {
    const int64_t first = parts.begin(part) + task * kTokensPerTask;
    const int64_t end = std::min(parts.end(part), first + kTokensPerTask);
    for (int64_t token = first; token < end; ++token) body(token);
  });
}

}  // namespace inflight::cpu
