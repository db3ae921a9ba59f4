#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "common/rounding.h"
#include "common/thread_pool.h"

namespace inflight::cpu {

// Rows in one part for each thread, so that what a thread has written is in its own caches when it reads it again.
// Parts begin at multiples of 16; the last ones may be empty.
class RowParts {
 public:
  static constexpr int64_t kMaxParts = 16;

  RowParts(int64_t rows, const ThreadPool& pool)
      : rows_(rows),
        count_(std::min<int64_t>(pool.size(), kMaxParts)),
        rows_per_part_(round_up(divide_up(rows, count_), 16)) {}

  int64_t count() const { return count_; }
  int64_t rows_per_part() const { return rows_per_part_; }
  int64_t begin(int64_t part) const { return std::min(rows_, part * rows_per_part_); }
  int64_t end(int64_t part) const { return begin(part + 1); }

 private:
  int64_t rows_;
  int64_t count_;
  int64_t rows_per_part_;
};

// body(part, task, thread) for every task in [0, tasks_per_part) of every part: a thread does those of its own part
// first, and then helps with the others.
template <class Body>
void for_each_part(ThreadPool& pool, const RowParts& parts, int64_t tasks_per_part, const Body& body) {
  struct alignas(64) Counter {
    std::atomic<int64_t> next{0};
  };
  Counter counters[RowParts::kMaxParts];
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

// body(row) for every row in [0, rows), on as many threads as that is worth.
template <class Body>
void for_each_row(ThreadPool& pool, int64_t rows, const Body& body) {
  constexpr int64_t kRowsPerTask = 4;
  if (rows <= kRowsPerTask) {
    for (int64_t row = 0; row < rows; ++row) body(row);
    return;
  }
  const RowParts parts(rows, pool);
  for_each_part(pool, parts, divide_up(parts.rows_per_part(), kRowsPerTask), [&](int64_t part, int64_t task, int) {
    const int64_t first = parts.begin(part) + task * kRowsPerTask;
    const int64_t end = std::min(parts.end(part), first + kRowsPerTask);
    for (int64_t row = first; row < end; ++row) body(row);
  });
}

}  // namespace inflight::cpu
