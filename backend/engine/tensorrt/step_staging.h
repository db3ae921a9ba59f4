#pragma once

// A step of the engine's contract → the arrays that its operations read. Free of CUDA: what is copied, and where to, is
// the engine's.

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/tensorrt/kernels/sampling_row.h"

namespace inflight::gpu {

// What a graph's inputs hold, see decoder.h. Sequences that process one token come first, in the order of the input,
// then chunks of several; rows of padding stand after the former.
struct StagedStep {
  std::vector<int32_t> tokens;          // [tokens]
  std::vector<int32_t> token_slots;     // [tokens]: the slot whose last sampled token, on the GPU, this is; -1: none
  std::vector<int32_t> positions;       // [tokens]
  std::vector<int32_t> sequences;       // [tokens]
  std::vector<int32_t> block_table;     // [sequences, table_width]
  std::vector<int32_t> lengths;         // [sequences]
  std::vector<int32_t> first_queries;   // [chunks + 1]
  std::vector<int32_t> sampled_rows;    // [rows], of the tokens
  std::vector<int32_t> sampled_slots;   // [rows]: who gets the token; -1: padding
  std::vector<SamplingRow> sampling;    // [rows]
  std::vector<std::pair<int32_t, int32_t>> forks;  // (parent, slot): whose last sampled token is copied before all else
  std::vector<SlotFailure> failures;  // slices that are left out
  int32_t table_width = 0;
  int32_t longest_chunk = 1;
  bool has_graph = false;  // every sequence generates: sizes are a bucket's, and so the step can be a CUDA graph's
};

class StepStaging {
 public:
  // `graph_sizes` are the numbers of sequences, ascending, to which steps that only generate are filled up; steps of
  // more are not. Padding reads and writes `spare_block`, which nobody else has.
  StepStaging(int32_t max_batch_size, int32_t spare_block, std::vector<int32_t> graph_sizes);

  // Lets the input's setups and slices take effect on the slots, and describes the step. Allocates nothing once `step`
  // has held as much. What this engine does not have fails the slot that asks for it, until its next setup.
  void stage(const StepInput& input, StagedStep& step);

 private:
  struct Slot {
    std::vector<int32_t> block_ids;
    SamplingConfig sampling;
    uint64_t num_generated = 0;
    float top_p = 0;  // after its decay
    std::optional<Error> failure;
  };

  void set_up(const SlotSetup& setup);
  const Slot* take(const SequenceSlice& slice, StagedStep& step);
  void add_sequence(const SequenceSlice& slice, const Slot& slot, StagedStep& step);
  void add_sampled(const SequenceSlice& slice, StagedStep& step);
  void fill_up(StagedStep& step) const;

  std::vector<Slot> slots_;
  std::vector<const SequenceSlice*> in_step_;
  int32_t spare_block_;
  std::vector<int32_t> graph_sizes_;
};

}  // namespace inflight::gpu
