#include "python/teacher_forcing.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "common/error.h"
#include "common/rounding.h"

namespace inflight::python {
namespace {

// A sequence on its way through the engine.
struct Progress {
  std::span<const int32_t> tokens;
  std::vector<float>* logits;
  int32_t slot;
  int32_t past_length = 0;
  int32_t num_blocks = 0;
};

int32_t blocks_for(size_t tokens, const EngineInfo& info) {
  return static_cast<int32_t>(divide_up(static_cast<int64_t>(tokens), info.tokens_per_block));
}

void check(const std::vector<std::vector<int32_t>>& sequences, const EngineInfo& info) {
  const auto invalid = [](const auto&... what) { throw_error(ErrorCode::kInvalidArgument, what...); };
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto& tokens = sequences[i];
    if (tokens.empty()) invalid("sequence ", i, " is empty; it needs at least one token");
    if (tokens.size() > static_cast<size_t>(info.max_seq_len)) {
      invalid("sequence ", i, " has ", tokens.size(), " tokens; this engine takes at most ", info.max_seq_len);
    }
    if (blocks_for(tokens.size(), info) > info.num_blocks) {
      invalid("sequence ", i, " has ", tokens.size(), " tokens; the KV cache holds ",
              static_cast<int64_t>(info.num_blocks) * info.tokens_per_block);
    }
    for (const int32_t token : tokens) {
      if (token < 0 || token >= info.vocab_size) {
        invalid("sequence ", i, " holds token ", token, "; token ids of this model are 0 to ", info.vocab_size - 1);
      }
    }
  }
}

int32_t checked_limit(const char* name, const std::optional<int32_t>& value, int32_t most) {
  if (value && *value < 1) throw_error(ErrorCode::kInvalidArgument, name, " is ", *value, "; it must be at least 1");
  return std::min(value.value_or(most), most);
}

// Blocks are handed out as sequences grow, so that those of sequences that run together interleave.
void run_together(Engine& engine, std::vector<Progress> batch, int32_t chunk_size, int32_t tokens_per_step) {
  const EngineInfo& info = engine.info();
  std::vector<SlotSetup> setups;
  for (const Progress& progress : batch) setups.push_back({.slot = progress.slot, .prompt = progress.tokens});
  std::vector<int32_t> blocks(info.num_blocks);  // in the order in which they are given out
  std::iota(blocks.begin(), blocks.end(), 0);
  int32_t next_block = 0;
  while (!batch.empty()) {
    std::vector<SequenceSlice> slices;
    int32_t budget = tokens_per_step;
    for (Progress& progress : batch) {
      const auto left = progress.tokens.subspan(progress.past_length);
      const int32_t size = std::min({static_cast<int32_t>(left.size()), chunk_size, budget});
      if (size == 0) break;
      budget -= size;
      const int32_t num_new = blocks_for(progress.past_length + size, info) - progress.num_blocks;
      SequenceSlice slice{progress.slot, left.first(size), progress.past_length,
                          std::span<const int32_t>(blocks).subspan(next_block, num_new)};
      progress.num_blocks += num_new;
      next_block += num_new;
      slice.samples = false;
      slice.returned_logits = ReturnedLogits::kAll;
      slices.push_back(slice);
    }
    engine.launch({.setups = setups, .slices = slices});
    setups.clear();
    const StepOutput output = engine.finish();
    if (!output.failures.empty()) throw output.failures.front().error;
    auto row = output.logits.begin();
    for (size_t i = 0; i < slices.size(); ++i) {
      const auto end = row + static_cast<std::ptrdiff_t>(slices[i].tokens.size() * info.vocab_size);
      batch[i].logits->insert(batch[i].logits->end(), row, end);
      batch[i].past_length += static_cast<int32_t>(slices[i].tokens.size());
      row = end;
    }
    std::erase_if(batch, [](const Progress& progress) {
      return progress.past_length == static_cast<int32_t>(progress.tokens.size());
    });
  }
}

}  // namespace

std::vector<std::vector<float>> teacher_forced_logits(Engine& engine,
                                                      const std::vector<std::vector<int32_t>>& sequences,
                                                      const TeacherForcingOptions& options) {
  const EngineInfo& info = engine.info();
  check(sequences, info);
  const int32_t tokens_per_step = checked_limit("tokens_per_step", options.tokens_per_step,
                                                std::min(info.max_num_tokens, info.max_returned_logits));
  const int32_t chunk_size = checked_limit("chunk_size", options.chunk_size, tokens_per_step);

  std::vector<std::vector<float>> logits(sequences.size());
  size_t next = 0;
  while (next < sequences.size()) {
    std::vector<Progress> batch;
    int32_t blocks = 0;
    for (; next < sequences.size() && static_cast<int32_t>(batch.size()) < info.max_batch_size; ++next) {
      blocks += blocks_for(sequences[next].size(), info);
      if (blocks > info.num_blocks) break;
      logits[next].reserve(sequences[next].size() * info.vocab_size);
      batch.push_back({sequences[next], &logits[next], static_cast<int32_t>(batch.size())});
    }
    run_together(engine, std::move(batch), chunk_size, tokens_per_step);
  }
  return logits;
}

}  // namespace inflight::python
