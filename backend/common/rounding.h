#pragma once

#include <cstdint>

namespace inflight {

// a / b rounded up, for a >= 0 and b > 0.
constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The least multiple of `multiple` that is >= a.
constexpr int64_t round_up(int64_t a, int64_t multiple) { return divide_up(a, multiple) * multiple; }

}  // namespace inflight
