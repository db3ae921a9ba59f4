#pragma once

#include <algorithm>
#include <cstdint>

#include "common/rounding.h"
#include "common/thread_pool.h"

namespace inflight::cpu {

// body(row) for every row in [0, rows), on as many threads as that is worth.
template <class Body>
void for_each_row(ThreadPool& pool, int64_t rows, const Body& body) {
  constexpr int64_t kRowsPerTask = 4;
  if (rows <= kRowsPerTask) {
    for (int64_t row = 0; row < rows; ++row) body(row);
    return;
  }
  pool.parallel_for(divide_up(rows, kRowsPerTask), [&](int64_t task) {
    const int64_t end = std::min(rows, (task + 1) * kRowsPerTask);
    for (int64_t row = task * kRowsPerTask; row < end; ++row) body(row);
  });
}

}  // namespace inflight::cpu
