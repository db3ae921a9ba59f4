#include "engine/cpu/kernels/linear.h"

#include <algorithm>

#include "common/rounding.h"
#include "engine/cpu/kernels/linear_kernel.h"

namespace inflight::cpu {
namespace {

constexpr int64_t kTokensPerTask = 128;      // their inputs fit the second-level cache
constexpr int64_t kMinTokensPerPart = 64;    // worth requantizing the weights for a thread's own tokens
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

  const int64_t blocks = divide_up(layout.rows, kBlockRows);
  const int64_t tile_blocks = input.tokens() == 1 ? 1 : integer ? 2 : 4;
  const int64_t tiles = divide_up(blocks, tile_blocks);
  const auto multiply = [&](int64_t block_task, int64_t block_tasks, int64_t first_token, int64_t last_token) {
    if (first_token == last_token) return;
    kernel({.layout = &layout,
            .blocks = weight.blocks(),
            .first_block = block_task * tiles / block_tasks * tile_blocks,
            .last_block = std::min(blocks, (block_task + 1) * tiles / block_tasks * tile_blocks),
            .first_token = first_token,
            .last_token = last_token,
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
  };

  const int64_t tasks = count_tasks(layout, input.tokens(), pool.size());
  const RowParts parts(input.tokens(), pool);
  if (form == InputForm::kTiles && parts.rows_per_part() >= kMinTokensPerPart &&
      parts.rows_per_part() <= kMaxAmxTaskTokens) {
    const int64_t block_tasks = std::min(tiles, divide_up(tasks, parts.count()));
    for_each_part(pool, parts, block_tasks, [&](int64_t part, int64_t block_task, int) {
      multiply(block_task, block_tasks, parts.begin(part), parts.end(part));
    });
    return;
  }
  const int64_t task_tokens = form == InputForm::kTiles ? kMaxAmxTaskTokens : kTokensPerTask;
  const int64_t token_tasks = divide_up(input.tokens(), task_tokens);
  const int64_t block_tasks = std::min(tiles, divide_up(tasks, token_tasks));
  pool.parallel_for(block_tasks * token_tasks, [&](int64_t index) {
    const int64_t first_token = index / block_tasks * task_tokens;
    multiply(index % block_tasks, block_tasks, first_token, std::min(input.tokens(), first_token + task_tokens));
  });
}

}  // namespace inflight::cpu
