#include <algorithm>
#include <memory>
#include <numeric>
#include <random>

#include "check.h"
#include "engine/engine.h"
#include "step_driver.h"
#include "tiny_model.h"

using namespace inflight;
using namespace inflight::test;

namespace {

constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;
constexpr int32_t kBlocksPerSlot = 10;

std::vector<int32_t> random_tokens(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = 3 + static_cast<int32_t>(generator() % 60);
  return tokens;
}

SamplingConfig greedy() { return {.return_log_probs = true}; }

// Hardly any token twice in a row, so that accepted drafts are no accident.
SamplingConfig sampled_with_everything() {
  return {.top_k = 30,
          .top_p = 0.95f,
          .temperature = 1.5f,
          .random_seed = 5,
          .top_p_decay = 0.9f,
          .top_p_min = 0.3f,
          .top_p_reset_id = 9,
          .repetition_penalty = 1.2f,
          .presence_penalty = 0.3f,
          .frequency_penalty = 0.1f,
          .min_length = 20,
          .end_ids = {2},
          .bad_words = {{4}, {5, 6}, {7, 8, 9}},
          .embedding_bias = std::make_shared<const std::vector<float>>(71, 0.25f),
          .return_log_probs = true};
}

// One sequence in a slot with blocks of its own.
struct Generation {
  int32_t slot;
  std::vector<int32_t> tokens;  // prompt, then generated
  size_t prompt_length = tokens.size();
  int32_t past_length = 0;
  std::vector<int32_t> block_ids = {};
  std::vector<int32_t> input = {};  // of the running step
  std::vector<float> log_probs = {};
  std::vector<float> logits = {};

  std::vector<int32_t> generated() const { return {tokens.begin() + static_cast<int>(prompt_length), tokens.end()}; }

  // What is not in the cache yet, then drafts.
  SequenceSlice slice(const std::vector<int32_t>& drafts = {}, ReturnedLogits returned = ReturnedLogits::kNone) {
    block_ids.resize(kBlocksPerSlot);
    std::iota(block_ids.begin(), block_ids.end(), slot * kBlocksPerSlot);
    input.assign(tokens.begin() + past_length, tokens.end());
    input.insert(input.end(), drafts.begin(), drafts.end());
    return {.slot = slot,
            .tokens = input,
            .past_length = past_length,
            .new_block_ids = block_ids,
            .num_drafts = static_cast<int32_t>(drafts.size()),
            .returned_logits = returned};
  }

  void accept(const StepOutput& output) {
    past_length = static_cast<int32_t>(tokens.size()) - 1;
    for (const SampledToken& sampled : output.tokens) {
      if (sampled.slot != slot) continue;
      tokens.push_back(sampled.token);
      log_probs.push_back(sampled.log_prob);
      ++past_length;
    }
  }
};

// An engine, and the steps that the test runs on it.
struct DrivenEngine {
  std::unique_ptr<Engine> engine;
  StepDriver steps{*engine};
};

DrivenEngine make_engine(const TinyModel& model = random_model(tiny_config(), 5)) {
  return {load_engine(write_engine(model), {.num_threads = 2, .max_steps_in_flight = 2})};
}

// `count` tokens after the prompt, one a step.
Generation generate(StepDriver& steps, const SamplingConfig& config, std::vector<int32_t> prompt, size_t count) {
  Generation generation{0, std::move(prompt)};
  steps.set_up(0, config, generation.tokens);
  while (generation.generated().size() < count) generation.accept(steps.run({generation.slice()}));
  return generation;
}

// The mask that allows the tokens of one residue class.
std::vector<uint32_t> residue_mask(int32_t residue, int32_t modulus) {
  std::vector<uint32_t> words(3);
  for (int32_t token = residue; token < 71; token += modulus) words[token / 32] |= 1u << token % 32;
  return words;
}

}  // namespace

TEST(drafts_change_no_token_and_right_ones_save_steps) {
  auto [engine, steps] = make_engine();
  constexpr size_t kCount = 60;
  for (const SamplingConfig& config : {greedy(), sampled_with_everything()}) {
    for (const uint32_t seed : {1, 2, 3}) {
      const Generation expected = generate(steps, config, random_tokens(20, seed), kCount + 40);
      // Drafts of which each token is right with this probability; 40 of them do not fit one group of rows.
      for (const double share : {0.0, 0.5, 0.9, 1.0}) {
        for (const size_t num_drafts : {1, 5, 40}) {
          std::mt19937 generator(seed);
          Generation generation{3, random_tokens(20, seed)};
          steps.set_up(3, config, generation.tokens);
          size_t num_steps = 0;
          for (; generation.generated().size() < kCount; ++num_steps) {
            std::vector<int32_t> drafts(expected.tokens.begin() + generation.tokens.size(), expected.tokens.end());
            drafts.resize(num_drafts);
            for (int32_t& draft : drafts) {
              if (std::uniform_real_distribution()(generator) >= share) draft = (draft + 1) % 71;
            }
            const size_t before = generation.tokens.size();
            generation.accept(steps.run({generation.slice(drafts)}));
            const size_t num_accepted = generation.tokens.size() - before;
            CHECK(num_accepted >= 1 && num_accepted <= num_drafts + 1);
          }
          for (size_t i = 0; i < generation.tokens.size(); ++i) CHECK_EQ(generation.tokens[i], expected.tokens[i]);
          for (size_t i = 0; i < generation.log_probs.size(); ++i) {
            CHECK(std::abs(generation.log_probs[i] - expected.log_probs[i]) < 1e-4);
          }
          if (share == 0.0) CHECK_EQ(num_steps, kCount);
          if (share == 1.0) CHECK_EQ(num_steps, (kCount + num_drafts) / (num_drafts + 1));
        }
      }
    }
  }
}

TEST(drafts_of_a_whole_batch_are_verified_in_groups_of_rows) {
  auto [engine, steps] = make_engine();
  constexpr size_t kNumDrafts = 25;
  std::vector<std::vector<int32_t>> expected;
  for (int32_t slot = 0; slot < 5; ++slot) {
    expected.push_back(generate(steps, sampled_with_everything(), random_tokens(5, slot), 70).tokens);
  }
  // Slot i's drafts are right up to 5 * i.
  std::vector<Generation> generations;
  for (int32_t slot = 0; slot < 5; ++slot) {
    generations.push_back({slot, random_tokens(5, slot)});
    steps.set_up(slot, sampled_with_everything(), generations.back().tokens);
  }
  for (int step = 0; step < 3; ++step) {
    std::vector<SequenceSlice> slices;
    for (Generation& generation : generations) {
      const auto begin = expected[generation.slot].begin() + generation.tokens.size();
      std::vector<int32_t> drafts(begin, begin + kNumDrafts);
      for (size_t i = 5 * generation.slot; i < kNumDrafts; ++i) drafts[i] = (drafts[i] + 1) % 71;
      slices.push_back(generation.slice(drafts));
    }
    const StepOutput output = steps.run(slices);
    CHECK(std::ranges::is_sorted(output.tokens, {}, &SampledToken::slot));
    for (Generation& generation : generations) {
      const size_t before = generation.tokens.size();
      generation.accept(output);
      CHECK_EQ(generation.tokens.size() - before, 5u * generation.slot + 1);
      CHECK(std::equal(generation.tokens.begin(), generation.tokens.end(), expected[generation.slot].begin()));
    }
  }
}

TEST(the_previous_token_may_be_followed_by_drafts) {
  auto [engine, steps] = make_engine();
  const auto expected = generate(steps, greedy(), random_tokens(20, 1), 4).generated();
  Generation generation{1, random_tokens(20, 1)};
  steps.set_up(1, greedy(), generation.tokens);
  const SequenceSlice context = generation.slice();
  steps.launch({context});
  const std::vector<int32_t> tokens = {kPreviousToken, expected[1], expected[2]};
  SequenceSlice next = context;
  next.tokens = tokens;
  next.past_length = 20;
  next.num_drafts = 2;
  steps.launch({next});
  CHECK_EQ(engine->finish().tokens[0].token, expected[0]);
  const StepOutput output = engine->finish();
  CHECK_EQ(output.tokens.size(), 3u);
  for (int i = 0; i < 3; ++i) CHECK_EQ(output.tokens[i].token, expected[i + 1]);
}

TEST(returned_logits_are_those_of_accepted_tokens_or_of_the_whole_input) {
  const TinyModel model = random_model(tiny_config(), 5);
  auto [engine, steps] = make_engine(model);
  const SamplingConfig config = sampled_with_everything();
  const auto expected = generate(steps, config, random_tokens(20, 1), 30).tokens;
  const auto reference = reference_logits(model, expected, 20);

  // In one step: all of a context with drafts, none, accepted rows only, a context that does not sample.
  std::vector<int32_t> drafts(expected.begin() + 20, expected.begin() + 40);
  drafts[7] = (drafts[7] + 1) % 71;
  std::vector<Generation> generations;
  for (int32_t slot = 0; slot < 5; ++slot) {
    generations.push_back({slot, random_tokens(20, 1)});
    steps.set_up(slot, config, generations.back().tokens);
  }
  std::vector<SequenceSlice> slices = {
      generations[0].slice(drafts, ReturnedLogits::kAll), generations[1].slice(drafts, ReturnedLogits::kNone),
      generations[2].slice(drafts, ReturnedLogits::kSampled), generations[3].slice({}, ReturnedLogits::kSampled),
      generations[4].slice({}, ReturnedLogits::kAll)};
  slices[3].samples = slices[4].samples = false;
  const StepOutput output = steps.run(slices);
  CHECK_EQ(output.tokens.size(), 24u);
  for (size_t i = 0; i < 24; ++i) {
    CHECK_EQ(output.tokens[i].slot, static_cast<int32_t>(i / 8));
    CHECK_EQ(output.tokens[i].token, expected[20 + i % 8]);
  }
  std::vector<size_t> positions;  // of the rows
  const auto add = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) positions.push_back(i);
  };
  add(0, 40);
  add(19, 27);
  add(0, 20);
  CHECK_EQ(output.logits.size(), positions.size() * 71);
  for (size_t row = 0; row < positions.size(); ++row) {
    if (row >= 27 && row < 40) continue;  // a wrong draft, and those after it
    for (size_t i = 0; i < 71; ++i) {
      CHECK(std::abs(output.logits[row * 71 + i] - reference[positions[row]][i]) < 2e-4);
    }
  }
}

TEST(a_paused_sequence_goes_on_in_another_slot) {
  auto [engine, steps] = make_engine();
  for (const SamplingConfig& config : {greedy(), sampled_with_everything()}) {
    const Generation expected = generate(steps, config, random_tokens(20, 4), 40);
    for (const size_t num_generated : {1, 2, 17, 39}) {
      Generation generation{4, random_tokens(20, 4)};
      generation.tokens.assign(expected.tokens.begin(), expected.tokens.begin() + 20 + num_generated);
      steps.set_up(4, config, std::span(generation.tokens).first(20), std::span(generation.tokens).subspan(20));
      while (generation.tokens.size() < expected.tokens.size()) {
        generation.accept(steps.run({generation.slice()}));
      }
      CHECK(generation.tokens == expected.tokens);
    }
  }
}

TEST(candidates_follow_the_tokens_that_their_beam_is_fed) {
  const TinyModel model = random_model(tiny_config(), 5);
  auto [engine, steps] = make_engine(model);
  SamplingConfig config = {.repetition_penalty = 1.5f, .frequency_penalty = 0.5f, .num_candidates = 6};
  const std::vector<int32_t> prompt = random_tokens(20, 6);
  Generation beam{0, prompt}, anew{1, prompt};
  steps.set_up(0, config, prompt);
  for (int step = 0; step < 25; ++step) {
    steps.set_up(1, config, prompt, anew.generated());
    const StepOutput output = steps.run({beam.slice({}, ReturnedLogits::kSampled), anew.slice()});
    CHECK_EQ(output.tokens.size(), 12u);
    CHECK_EQ(output.logits.size(), 71u);

    std::vector<double> scores(output.logits.begin(), output.logits.end());
    double sum = 0;
    for (const double logit : scores) sum += std::exp(logit);
    std::vector<int32_t> order(71);
    for (int32_t token = 0; token < 71; ++token) {
      order[token] = token;
      scores[token] -= std::log(sum);
      const auto count = std::ranges::count(beam.generated(), token);
      if (std::ranges::count(beam.tokens, token) > 0) scores[token] *= 1.5;
      scores[token] -= 0.5 * static_cast<double>(count);
    }
    std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
    for (int i = 0; i < 6; ++i) {
      CHECK_EQ(output.tokens[i].slot, 0);
      CHECK_EQ(output.tokens[i].token, order[i]);
      CHECK(std::abs(output.tokens[i].log_prob - scores[order[i]]) < 1e-4);
      CHECK_EQ(output.tokens[6 + i].token, order[i]);
    }
    for (Generation* generation : {&beam, &anew}) {
      generation->past_length = static_cast<int32_t>(generation->tokens.size());
      generation->tokens.push_back(order[step % 6]);
    }
  }
}

TEST(masked_slices_sample_only_what_their_mask_allows) {
  auto [engine, steps] = make_engine();
  std::vector<Generation> generations;
  std::vector<std::vector<uint32_t>> masks;
  const auto expected = generate(steps, {.top_p = 1.0f, .random_seed = 8}, random_tokens(12, 4), 20).tokens;
  for (int32_t slot = 0; slot < 5; ++slot) {
    generations.push_back({slot, random_tokens(12, slot)});
    masks.push_back(residue_mask(slot, 5));
    steps.set_up(slot, {.top_p = 1.0f, .random_seed = 8}, generations.back().tokens);
  }
  for (int step = 0; step < 20; ++step) {
    std::vector<SequenceSlice> slices;
    for (Generation& generation : generations) {
      slices.push_back(generation.slice({}, generation.slot % 2 ? ReturnedLogits::kAll : ReturnedLogits::kNone));
      if (generation.slot != 4) slices.back().mask = masks[generation.slot];
    }
    const StepOutput output = steps.run(slices);
    for (Generation& generation : generations) generation.accept(output);
    for (int32_t slot = 0; slot < 4; ++slot) CHECK_EQ(output.tokens[slot].token % 5, slot);
  }
  CHECK(generations[4].tokens == expected);
}

TEST(a_sequence_that_cannot_begin_fails_alone_until_its_slot_is_given_to_another) {
  auto [engine, steps] = make_engine();
  const auto expected = generate(steps, greedy(), random_tokens(12, 1), 3).generated();
  Generation fine{1, random_tokens(12, 1)}, failing{2, random_tokens(12, 2)}, heir{2, random_tokens(12, 1)};
  const SamplingConfig bias_of_another_model = {.embedding_bias =
                                                    std::make_shared<const std::vector<float>>(std::vector<float>(5))};
  steps.set_up(1, greedy(), fine.tokens);
  steps.set_up(2, bias_of_another_model, failing.tokens);
  for (int step = 0; step < 2; ++step) {
    const StepOutput output = steps.run({failing.slice(), fine.slice()});
    CHECK_EQ(output.failures.size(), 1u);
    CHECK_EQ(output.failures[0].slot, 2);
    CHECK(std::string(output.failures[0].error.what()).find("embedding_bias has 5 values") != std::string::npos);
    CHECK_EQ(output.tokens.size(), 1u);
    fine.accept(output);
  }
  steps.set_up(2, greedy(), heir.tokens);
  for (int step = 0; step < 3; ++step) {
    const StepOutput output = steps.run({heir.slice(), fine.slice()});
    CHECK(output.failures.empty());
    heir.accept(output);
    if (step == 0) fine.accept(output);
    if (step == 0) CHECK(fine.generated() == expected);
  }
  CHECK(heir.generated() == expected);
}

TEST(a_fork_goes_on_as_its_parent_does) {
  auto [engine, steps] = make_engine();
  SamplingConfig config = {.repetition_penalty = 1.5f, .frequency_penalty = 0.5f, .num_candidates = 4};
  const std::vector<int32_t> prompt = random_tokens(20, 6);
  Generation parent{0, prompt};
  steps.set_up(0, config, prompt);
  for (int step = 0; step < 5; ++step) {
    const StepOutput output = steps.run({parent.slice()});
    parent.past_length = static_cast<int32_t>(parent.tokens.size());
    parent.tokens.push_back(output.tokens[step % 4].token);
  }
  // 24 tokens are cached: a block of 16 is shared, the one after it copied.
  const BlockCopy copy = {1, 30};
  const SlotSetup fork = {.slot = 3, .parent = 0, .num_parent_blocks = 1};
  const std::vector<int32_t> token = {parent.tokens.back()}, block = {30};
  const SequenceSlice slices[] = {
      {.slot = 3, .tokens = token, .past_length = parent.past_length, .new_block_ids = block},
      {.slot = 0, .tokens = token, .past_length = parent.past_length, .new_block_ids = {}}};
  engine->launch({.copies = {&copy, 1}, .setups = {&fork, 1}, .slices = slices});
  const StepOutput output = engine->finish();
  CHECK_EQ(output.tokens.size(), 8u);
  for (int i = 0; i < 4; ++i) {
    CHECK_EQ(output.tokens[i].token, output.tokens[4 + i].token);
    CHECK_EQ(output.tokens[i].log_prob, output.tokens[4 + i].log_prob);
  }
}

TEST(setups_that_contradict_themselves_are_rejected_and_change_nothing) {
  auto [engine, steps] = make_engine();
  Generation generation{0, random_tokens(20, 1)};
  steps.set_up(0, greedy(), generation.tokens);
  generation.accept(steps.run({generation.slice()}));
  const std::vector<int32_t> too_long(200, 4);
  const auto rejects = [&, &engine = engine](std::vector<SlotSetup> setups, const std::string& message) {
    CHECK_ERROR(engine->launch({.setups = setups}), kInvalid, message);
  };
  rejects({{.slot = 5}}, "the slot of a setup is 5; this engine has slots 0 to 4");
  rejects({{.slot = 1}, {.slot = 1}}, "slot 1: set up twice in the step");
  rejects({{.slot = 1, .prompt = too_long}}, "set up with 200 tokens; max_seq_len is 150");
  rejects({{.slot = 1, .parent = 7}}, "the parent of a fork is 7");
  rejects({{.slot = 1, .parent = 2}}, "a fork of slot 2, which has no sequence");
  rejects({{.slot = 0, .parent = 0}}, "a fork of slot 0");
  rejects({{.slot = 0}, {.slot = 1, .parent = 0, .num_parent_blocks = 1}},
          "a fork with 1 blocks of slot 0, which has 0");
  const std::vector<int32_t> token = {4}, block = {9};
  const SequenceSlice slice = {.slot = 2, .tokens = token, .past_length = 0, .new_block_ids = block};
  CHECK_ERROR(engine->launch({.slices = {&slice, 1}}), kInvalid, "slot 2: no setup has given it to a sequence");
  CHECK(steps.run({generation.slice()}).failures.empty());
}

TEST(slices_that_contradict_themselves_are_rejected) {
  auto [engine, steps] = make_engine();
  const std::vector<uint32_t> mask = residue_mask(0, 5), short_mask(2);
  Generation generation{0, random_tokens(4, 1)};
  steps.set_up(0, {}, generation.tokens);
  const auto rejects = [&](auto change, const std::string& message) {
    SequenceSlice slice = generation.slice();
    change(slice);
    CHECK_ERROR(steps.run({slice}), kInvalid, message);
  };
  rejects([](SequenceSlice& slice) { slice.num_drafts = 4; }, "num_drafts is 4; with 4 tokens it must be in [0, 3]");
  rejects([](SequenceSlice& slice) { slice.num_drafts = -1; }, "num_drafts is -1");
  rejects([](SequenceSlice& slice) { slice.num_drafts = 1, slice.samples = false; }, "does not sample");
  rejects([&](SequenceSlice& slice) { slice.num_drafts = 1, slice.mask = mask; }, "masked slice");
  rejects([&](SequenceSlice& slice) { slice.mask = short_mask; }, "a mask of 2 words; the vocabulary takes 3");
  steps.set_up(0, {.num_candidates = 2}, generation.tokens);
  rejects([](SequenceSlice& slice) { slice.num_drafts = 1; }, "slot of a beam");
  CHECK_EQ(steps.run({generation.slice()}).tokens.size(), 2u);
  generation.past_length = 4;
  generation.tokens.push_back(kPreviousToken);
  CHECK_ERROR(steps.run({generation.slice()}), kInvalid, "no previous token");
}

TEST_MAIN()
