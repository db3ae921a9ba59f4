#include "engine/cpu/kernels/linear.h"

#include <algorithm>

#include "common/rounding.h"
#include "engine/cpu/kernels/linear_kernel.h"

namespace inflight::cpu {
namespace {

constexpr int64_t kTokensPerTask = 128;      // their inputs fit the second-level cache
constexpr int64_t kMinTokensPerPart = 64;    // worth converting the weights for a thread's own tokens
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
  const int64_t bytes = divide_up(layout.rows, kPanelRows) * layout.panel_bytes * divide_up(tokens, kTokensPerRead);
  const int64_t tasks = std::clamp<int64_t>(bytes / kMinTaskBytes, 1, kMaxTasksPerThread * threads);
  return tasks <= threads ? tasks : tasks / threads * threads;
}

// Calls the kernel for every part of `whole`, whose panels are cut at multiples of tile_panels.
void run(const LinearTask& whole, InputForm form, int64_t tile_panels, ThreadPool& pool, Isa isa) {
  const auto kernel = linear_kernel(isa, form);
  const int64_t panels = whole.last_panel, tokens = whole.last_token;
  const int64_t tiles = divide_up(panels, tile_panels);
  const auto multiply = [&](int64_t panel_task, int64_t panel_tasks, int64_t first_token, int64_t last_token) {
    if (first_token == last_token) return;
    LinearTask task = whole;
    task.first_panel = panel_task * tiles / panel_tasks * tile_panels;
    task.last_panel = std::min(panels, (panel_task + 1) * tiles / panel_tasks * tile_panels);
    task.first_token = first_token;
    task.last_token = last_token;
    kernel(task);
  };

  const int64_t tasks = count_tasks(*whole.layout, tokens, pool.size());
  const TokenParts parts(tokens, pool);
  if (form == InputForm::kTiles && parts.tokens_per_part() >= kMinTokensPerPart &&
      parts.tokens_per_part() <= kMaxAmxTaskTokens) {
    const int64_t panel_tasks = std::min(tiles, divide_up(tasks, parts.count()));
    for_each_part(pool, parts, panel_tasks, [&](int64_t part, int64_t panel_task, int) {
      multiply(panel_task, panel_tasks, parts.begin(part), parts.end(part));
    });
    return;
  }
  const int64_t task_tokens = form == InputForm::kTiles ? kMaxAmxTaskTokens : kTokensPerTask;
  const int64_t token_tasks = divide_up(tokens, task_tokens);
  const int64_t panel_tasks = std::min(tiles, divide_up(tasks, token_tasks));
  pool.parallel_for(panel_tasks * token_tasks, [&](int64_t index) {
    const int64_t first_token = index / panel_tasks * task_tokens;
    multiply(index % panel_tasks, panel_tasks, first_token, std::min(tokens, first_token + task_tokens));
  });
}

}  // namespace

void linear(const PackedMatrix& weight, LinearInput& input, const LinearOutput& output, ThreadPool& pool, Isa isa,
            Precision precision) {
  if (input.tokens() == 0) return;
  const PackedLayout& layout = weight.layout();
  input.quantize(layout, precision, pool, isa);
  const InputForm form = input_form(layout, precision, isa);
  LinearTask task = input.task(weight);
  task.y = output.rows;
  task.y_stride = output.row_stride;
  task.bias = output.bias;
  task.accumulate = output.accumulate;
  task.requantizes = precision == Precision::kRounded;
  run(task, form, input.tokens() == 1 ? 1 : form == InputForm::kFloats ? 4 : 2, pool, isa);
}

bool has_linear_silu_and_multiply(const PackedLayout& gate_up, const PackedLayout& next, Precision precision, Isa isa) {
  return input_form(gate_up, precision, isa) == InputForm::kTiles &&
         input_form(next, precision, isa) == InputForm::kTiles;
}

void linear_silu_and_multiply(const PackedMatrix& gate_up, const float* bias, LinearInput& input,
                              const PackedLayout& next, LinearInput& output, ThreadPool& pool, Isa isa) {
  if (input.tokens() == 0) return;
  input.quantize(gate_up.layout(), Precision::kRounded, pool, isa);
  LinearTask task = input.task(gate_up);
  task.last_panel /= 2;
  task.activated = output.begin_tiles(next, isa);
  task.bias = bias;
  run(task, InputForm::kTiles, 2, pool, isa);
}

}  // namespace inflight::cpu
