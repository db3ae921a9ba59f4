#include "engine/cpu/kernels/linear.h"

#include <algorithm>

#include "common/rounding.h"
#include "engine/cpu/kernels/linear_kernel.h"

namespace inflight::cpu {
namespace {

constexpr int64_t kTokensPerTask = 128;      // their inputs fit the second-level cache
constexpr int64_t kTokensPerTileTask = 256;  // of the matrix unit, for which weights are requantized once
constexpr int64_t kMaxTasksPerThread = 16;   // evens out threads that lose their CPU for a while
constexpr int64_t kMinTaskBytes = 64 << 10;  // of weights read once: about 2 µs
constexpr int64_t kTokensPerRead = 4;        // multiplied in the time it takes to read the weights

void (*linear_kernel(Isa isa, InputForm form))(const LinearTask&) {
#if defined(__x86_64__)
  if (form == InputForm::kTiles) return linear_rounded_amx;
  if (isa >= Isa::kAvx512) return linear_avx512;
  if (isa == Isa::kAvx2) return linear_avx2;
#endif
  (void)isa, (void)form;
  return linear_portable;
}

// Into how many tasks to cut the work: none shorter than it is worth, and as many for each thread.
int64_t count_tasks(const PackedLayout& layout, int64_t tokens, int64_t threads) {
  const int64_t bytes = divide_up(layout.rows, kBlockRows) * layout.block_bytes * divide_up(tokens, kTokensPerRead);
  const int64_t tasks = std::clamp<int64_t>(bytes / kMinTaskBytes, 1, kMaxTasksPerThread * threads);
  return tasks <= threads ? tasks : tasks / threads * threads;
}

}  // namespace

void linear(const PackedMatrix& weight, LinearInput& input, const LinearOutput& output, ThreadPool& pool, Isa isa,
            Precision precision) {
  if (input.tokens() == 0) return;
  const PackedLayout& layout = weight.layout();
  const bool integer = layout.groups != 0;
  input.quantize(layout, precision, pool, isa);
  const InputForm form = input_form(layout, precision, isa);
  const auto kernel = linear_kernel(isa, form);

  const int64_t task_tokens = form == InputForm::kTiles ? kTokensPerTileTask : kTokensPerTask;
  const int64_t token_tasks = divide_up(input.tokens(), task_tokens);
  const int64_t blocks = divide_up(layout.rows, kBlockRows);
  const int64_t tile_blocks = input.tokens() == 1 ? 1 : integer ? 2 : 4;
  const int64_t tiles = divide_up(blocks, tile_blocks);
  const int64_t block_tasks = std::min(tiles, divide_up(count_tasks(layout, input.tokens(), pool.size()), token_tasks));

  pool.parallel_for(block_tasks * token_tasks, [&](int64_t index) {
    const int64_t block_task = index % block_tasks;
    const int64_t first_token = index / block_tasks * task_tokens;
    kernel({.layout = &layout,
            .blocks = weight.blocks(),
            .first_block = block_task * tiles / block_tasks * tile_blocks,
            .last_block = std::min(blocks, (block_task + 1) * tiles / block_tasks * tile_blocks),
            .first_token = first_token,
            .last_token = std::min(input.tokens(), first_token + task_tokens),
            .x = input.rows(),
            .x_stride = input.row_stride(),
            .quantized_x = integer ? input.quantized() : nullptr,
            .segment_scales = integer ? input.segment_scales() : nullptr,
            .segment_sums = integer ? input.segment_sums() : nullptr,
            .scaled_sums = integer ? input.scaled_sums() : nullptr,
            .y = output.rows,
            .y_stride = output.row_stride,
            .bias = output.bias,
            .accumulate = output.accumulate,
            .requantizes = precision == Precision::kRounded});
  });
}

}  // namespace inflight::cpu
