// The contract's steps as the GPU's operations read them: nothing here needs a GPU.

#include "engine/tensorrt/step_staging.h"

#include "check.h"

using namespace inflight;
using namespace inflight::gpu;

namespace {

using Ids = std::vector<int32_t>;

constexpr int32_t kSpare = 99;

StepStaging staging() { return StepStaging(8, kSpare, {1, 2, 4}); }

SlotSetup setup_of(int32_t slot, SamplingConfig sampling = {}) {
  return {.slot = slot, .sampling = std::move(sampling)};
}

SequenceSlice slice_of(int32_t slot, const Ids& tokens, int32_t past_length, const Ids& new_block_ids,
                       bool samples = true) {
  return {
      .slot = slot, .tokens = tokens, .past_length = past_length, .new_block_ids = new_block_ids, .samples = samples};
}

}  // namespace

TEST(sequences_that_generate_come_before_chunks) {
  StepStaging stage = staging();
  StagedStep step;
  const Ids chunk{5, 6, 7}, token{8}, longer{1, 2, 3, 4}, blocks[] = {{10}, {11, 12}, {13}};
  const SlotSetup setups[] = {setup_of(0), setup_of(1), setup_of(2)};
  const SequenceSlice slices[] = {slice_of(0, chunk, 0, blocks[0], false), slice_of(1, token, 17, blocks[1]),
                                  slice_of(2, longer, 2, blocks[2])};
  stage.stage({.setups = setups, .slices = slices}, step);
  CHECK(step.tokens == Ids({8, 5, 6, 7, 1, 2, 3, 4}));
  CHECK(step.token_slots == Ids(8, -1));
  CHECK(step.positions == Ids({17, 0, 1, 2, 2, 3, 4, 5}));
  CHECK(step.sequences == Ids({0, 1, 1, 1, 2, 2, 2, 2}));
  CHECK(step.lengths == Ids({18, 3, 6}));
  CHECK(step.first_queries == Ids({0, 3, 7}));  // from the first chunk's first token on
  CHECK_EQ(step.longest_chunk, 4);
  CHECK_EQ(step.table_width, 4);
  CHECK(step.block_table == Ids({11, 12, kSpare, kSpare, 10, kSpare, kSpare, kSpare, 13, kSpare, kSpare, kSpare}));
  CHECK(step.sampled_rows == Ids({0, 7}));
  CHECK(step.sampled_slots == Ids({1, 2}));
  CHECK(!step.has_graph && step.failures.empty());
}

TEST(a_step_that_only_generates_is_filled_up_to_the_size_of_a_graph) {
  StepStaging stage = staging();
  StagedStep step;
  const Ids token{kPreviousToken}, none, blocks{1, 2, 3, 4, 5};
  std::vector<SlotSetup> setups;
  std::vector<SequenceSlice> slices;
  for (int32_t slot = 0; slot < 3; ++slot) {
    setups.push_back(setup_of(slot));
    slices.push_back(slice_of(slot, token, 40, slot == 1 ? blocks : none));
  }
  stage.stage({.setups = setups, .slices = slices}, step);
  CHECK(step.has_graph);
  CHECK(step.token_slots == Ids({0, 1, 2, -1}));
  CHECK(step.positions == Ids({40, 40, 40, 0}));
  CHECK(step.sequences == Ids({0, 1, 2, 3}));
  CHECK(step.lengths == Ids({41, 41, 41, 1}));
  CHECK(step.sampled_slots == Ids({0, 1, 2, -1}));
  CHECK(step.sampled_rows == Ids({0, 1, 2, 3}));
  CHECK_EQ(step.sampling.size(), 4u);
  CHECK_EQ(step.table_width, 8);  // a power of two
  CHECK(Ids(step.block_table.begin() + 8, step.block_table.begin() + 14) == Ids({1, 2, 3, 4, 5, kSpare}));
  CHECK(Ids(step.block_table.begin() + 24, step.block_table.end()) == Ids(8, kSpare));

  setups.clear();
  slices.clear();
  for (int32_t slot = 0; slot < 5; ++slot) {  // more than the largest graph has
    if (slot >= 3) setups.push_back(setup_of(slot));
    slices.push_back(slice_of(slot, token, 41, none));
  }
  stage.stage({.setups = setups, .slices = slices}, step);
  CHECK(!step.has_graph);
  CHECK_EQ(step.lengths.size(), 5u);
}

TEST(blocks_accumulate_until_the_next_setup_and_a_fork_takes_its_parents) {
  StepStaging stage = staging();
  StagedStep step;
  const Ids token{3}, first{10, 11}, second{12, kFreedBlock}, own{20}, none;
  const auto table_of = [&](size_t row) {
    return Ids(step.block_table.begin() + row * step.table_width,
               step.block_table.begin() + (row + 1) * step.table_width);
  };
  const SlotSetup set_up[] = {setup_of(4)};
  const SequenceSlice one[] = {slice_of(4, token, 0, first)};
  stage.stage({.setups = set_up, .slices = one}, step);
  const SequenceSlice two[] = {slice_of(4, token, 1, second)};
  stage.stage({.slices = two}, step);
  CHECK(table_of(0) == Ids({10, 11, 12, kSpare}));  // what the window has left behind is nobody's
  const SlotSetup forked[] = {{.slot = 6, .parent = 4, .num_parent_blocks = 2}};
  const SequenceSlice both[] = {slice_of(4, token, 2, none), slice_of(6, token, 2, own)};
  stage.stage({.setups = forked, .slices = both}, step);
  CHECK(step.forks.size() == 1 && step.forks[0] == std::pair(4, 6));
  CHECK(table_of(0) == Ids({10, 11, 12, kSpare}));
  CHECK(table_of(1) == Ids({10, 11, 20, kSpare}));
  stage.stage({.setups = set_up, .slices = one}, step);
  CHECK(table_of(0) == Ids({10, 11, kSpare, kSpare}));
}

TEST(sampling_goes_on_where_it_was) {
  StepStaging stage = staging();
  StagedStep step;
  const Ids token{3}, generated{1, 2}, none;
  const SamplingConfig nucleus{
      .top_p = 0.5f, .temperature = 0.8f, .random_seed = 7, .top_p_decay = 0.5f, .top_p_min = 0.1f, .end_ids = {2}};
  const SlotSetup setups[] = {{.slot = 0, .sampling = nucleus, .generated = generated}, setup_of(1)};
  const SequenceSlice slices[] = {slice_of(0, token, 9, none), slice_of(1, token, 9, none)};
  stage.stage({.setups = setups, .slices = slices}, step);
  const SamplingRow first = step.sampling[0], greedy = step.sampling[1];
  CHECK(first.seed == 7 && first.num_generated == 2 && first.end_id == 2);
  CHECK(first.top_p == 0.125f && first.top_k == 0 && first.temperature == 0.8f);
  CHECK(greedy.top_k == 1 && greedy.top_p == 0 && greedy.temperature == 1);
  stage.stage({.slices = slices}, step);
  CHECK_EQ(step.sampling[0].num_generated, 3u);
  CHECK_EQ(step.sampling[0].top_p, 0.1f);  // no lower than top_p_min
  const SlotSetup forked[] = {{.slot = 2, .parent = 0}};
  const SequenceSlice of_fork[] = {slice_of(2, token, 11, none)};
  stage.stage({.setups = forked, .slices = of_fork}, step);
  CHECK_EQ(step.sampling[0].num_generated, 4u);
}

TEST(what_the_engine_does_not_have_fails_its_slot_alone) {
  StepStaging stage = staging();
  StagedStep step;
  const Ids token{3}, none;
  const SlotSetup setups[] = {setup_of(0, {.frequency_penalty = 0.5f}), setup_of(1)};
  const SequenceSlice slices[] = {slice_of(0, token, 0, none), slice_of(1, token, 0, none)};
  stage.stage({.setups = setups, .slices = slices}, step);
  CHECK_EQ(step.failures.size(), 1u);
  CHECK_EQ(step.failures[0].slot, 0);
  CHECK(step.failures[0].error.code() == ErrorCode::kUnsupported);
  CHECK(std::string(step.failures[0].error.what()).find("frequency_penalty") != std::string::npos);
  CHECK(step.sampled_slots == Ids({1}));
  stage.stage({.slices = slices}, step);
  CHECK_EQ(step.failures.size(), 1u);  // until the next setup
  const SlotSetup again[] = {setup_of(0)};
  stage.stage({.setups = again, .slices = slices}, step);
  CHECK(step.failures.empty());

  const uint32_t mask[] = {1};
  SequenceSlice guided = slice_of(1, token, 1, none);
  guided.mask = mask;
  const SequenceSlice with_mask[] = {slices[0], guided};
  stage.stage({.slices = with_mask}, step);
  CHECK(step.failures.size() == 1 && step.failures[0].slot == 1);
}

TEST_MAIN()
