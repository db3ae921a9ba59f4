#include "engine/cpu/kernels/linear.h"

#include <algorithm>

#include "engine/cpu/kernels/linear_kernel.h"

namespace inflight::cpu {
namespace {

constexpr int64_t kTokensPerTask = 64;        // their inputs fit the second-level cache
constexpr int64_t kTasksPerThread = 4;        // evens out threads that lose their CPU for a while
constexpr int64_t kMinTaskBytes = 64 << 10;   // of weights: about 2 µs of reading

void (*linear_kernel(Isa isa))(const LinearTask&) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return linear_avx512;
  if (isa == Isa::kAvx2) return linear_avx2;
#endif
  (void)isa;
  return linear_portable;
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

void linear(const PackedMatrix& weight, LinearInput& input, const LinearOutput& output, ThreadPool& pool, Isa isa) {
  const PackedLayout& layout = weight.layout();
  const bool integer = layout.groups != 0;
  if (integer) input.quantize(layout, pool, isa);
  const auto kernel = linear_kernel(isa);

  const int64_t blocks = divide_up(layout.rows, kBlockRows);
  const int64_t token_tasks = divide_up(input.tokens(), kTokensPerTask);
  const int64_t min_blocks = divide_up(kMinTaskBytes, layout.block_bytes * std::min(input.tokens(), kTokensPerTask));
  const int64_t wanted_tasks = divide_up(kTasksPerThread * pool.size(), token_tasks);
  const int64_t blocks_per_task = std::max(min_blocks, divide_up(blocks, wanted_tasks));
  const int64_t block_tasks = divide_up(blocks, blocks_per_task);

  pool.parallel_for(block_tasks * token_tasks, [&](int64_t index) {
    const int64_t first_block = index % block_tasks * blocks_per_task;
    const int64_t first_token = index / block_tasks * kTokensPerTask;
    kernel({.layout = &layout,
            .blocks = weight.blocks(),
            .first_block = first_block,
            .last_block = std::min(blocks, first_block + blocks_per_task),
            .first_token = first_token,
            .last_token = std::min(input.tokens(), first_token + kTokensPerTask),
            .x = input.rows(),
            .x_stride = input.row_stride(),
            .quantized_x = integer ? input.quantized() : nullptr,
            .segment_scales = integer ? input.segment_scales() : nullptr,
            .segment_sums = integer ? input.segment_sums() : nullptr,
            .scaled_sums = integer ? input.scaled_sums() : nullptr,
            .y = output.rows,
            .y_stride = output.row_stride,
            .bias = output.bias,
            .accumulate = output.accumulate});
  });
}

}  // namespace inflight::cpu
