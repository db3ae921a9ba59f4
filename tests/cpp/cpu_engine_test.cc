#include <algorithm>
#include <limits>
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

std::vector<int32_t> random_tokens(int32_t count, std::mt19937& generator) {
  std::uniform_int_distribution<int32_t> distribution(3, tiny_config().model.vocab_size - 2);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = distribution(generator);
  return tokens;
}

// One sequence on its way through an engine, with blocks scattered over the whole cache.
struct RunningSequence {
  int32_t slot;
  std::vector<int32_t> tokens;
  int32_t prompt_length;
  std::vector<int32_t> block_ids;
  std::vector<float> logits = {};  // of the tokens so far
  int32_t past_length = 0;

  SequenceSlice slice(int32_t num_tokens) const {
    return {.slot = slot,
            .tokens = std::span(tokens).subspan(past_length, num_tokens),
            .past_length = past_length,
            .new_block_ids = block_ids,
            .samples = false,
            .returned_logits = ReturnedLogits::kAll};
  }
  int32_t left() const { return static_cast<int32_t>(tokens.size()) - past_length; }
};

class BlockPool {
 public:
  BlockPool(const Engine& engine, std::mt19937& generator) : tokens_per_block_(engine.info().tokens_per_block) {
    free_.resize(engine.info().num_blocks);
    std::iota(free_.begin(), free_.end(), 0);
    std::shuffle(free_.begin(), free_.end(), generator);
  }
  std::vector<int32_t> take(size_t tokens) {
    const size_t count = (tokens + tokens_per_block_ - 1) / tokens_per_block_;
    CHECK(free_.size() >= count);
    const std::vector<int32_t> blocks(free_.end() - count, free_.end());
    free_.resize(free_.size() - count);
    return blocks;
  }

 private:
  int32_t tokens_per_block_;
  std::vector<int32_t> free_;
};

// Runs a step that takes `counts[i]` tokens of sequence i, 0 for none.
void run_step(const Engine& engine, StepDriver& steps, std::vector<RunningSequence>& sequences,
              const std::vector<int32_t>& counts) {
  std::vector<SequenceSlice> slices;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (counts[i] > 0) slices.push_back(sequences[i].slice(counts[i]));
  }
  const StepOutput output = steps.run(slices);
  auto row = output.logits.begin();
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto end = row + int64_t{counts[i]} * engine.info().vocab_size;
    sequences[i].logits.insert(sequences[i].logits.end(), row, end);
    sequences[i].past_length += counts[i];
    row = end;
  }
  CHECK(row == output.logits.end());
}

void check_logits(const TinyModel& model, const RunningSequence& sequence, const std::string& what) {
  const auto expected = reference_logits(model, sequence.tokens, sequence.prompt_length);
  const size_t vocab_size = expected[0].size();
  CHECK_EQ(sequence.logits.size(), expected.size() * vocab_size);
  for (size_t i = 0; i < sequence.logits.size(); ++i) {
    const double error = std::abs(sequence.logits[i] - expected[i / vocab_size][i % vocab_size]);
    if (!(error < 2e-4)) fail(__FILE__, __LINE__, concat(what, ": token ", i / vocab_size, " is off by ", error));
  }
}

// The sequence alone, in chunks of `chunk` tokens.
void check_alone(const TinyModel& model, const std::string& what, int32_t length, int32_t chunk, uint32_t seed = 1) {
  std::mt19937 generator(seed);
  const auto engine = load_engine(write_engine(model), {.num_threads = 2});
  BlockPool blocks(*engine, generator);
  const std::vector<int32_t> tokens = random_tokens(length, generator);
  std::vector<RunningSequence> sequences = {{3, tokens, length * 2 / 3, blocks.take(length)}};
  StepDriver steps(*engine);
  steps.set_up(3, {}, std::span(tokens).first(sequences[0].prompt_length));
  while (sequences[0].left() > 0) run_step(*engine, steps, sequences, {std::min(chunk, sequences[0].left())});
  check_logits(model, sequences[0], what);
}

struct Variation {
  std::string name;
  EngineConfig config;
};

std::vector<Variation> variations() {
  std::vector<Variation> all = {{"plain", tiny_config()}};
  const auto vary = [&](const std::string& name, auto change) {
    all.push_back({name, tiny_config()});
    change(all.back().config.model);
  };
  vary("biases", [](ModelConfig& model) { model.qkv_bias = model.dense_bias = model.mlp_bias = true; });
  vary("qk_norm", [](ModelConfig& model) { model.qk_norm = true; });
  vary("tied embeddings", [](ModelConfig& model) { model.tie_word_embeddings = true; });
  vary("windows", [](ModelConfig& model) { model.layer_windows = {5, 40}; });
  vary("window of one token, full attention", [](ModelConfig& model) { model.layer_windows = {1, 0}; });
  vary("multi-head attention", [](ModelConfig& model) { model.num_key_value_heads = 6; });
  vary("multi-query attention", [](ModelConfig& model) { model.num_key_value_heads = 1; });
  vary("head size 2", [](ModelConfig& model) { model.head_size = 2; });
  vary("head size 64", [](ModelConfig& model) { model.head_size = 64; });
  vary("more query heads than attention takes at a time", [](ModelConfig& model) {
    model.num_attention_heads = 65;
    model.num_key_value_heads = 1;
    model.head_size = 4;
  });
  vary("linear", [](ModelConfig& model) { model.rope = {.type = RopeType::kLinear, .factor = 2.5}; });
  vary("dynamic", [](ModelConfig& model) { model.rope = {.type = RopeType::kDynamic, .factor = 3}; });
  vary("llama3", [](ModelConfig& model) {
    model.rope = {.type = RopeType::kLlama3,
                  .theta = 5e5,
                  .factor = 8,
                  .original_max_position_embeddings = 32,
                  .low_freq_factor = 1,
                  .high_freq_factor = 4};
  });
  vary("yarn", [](ModelConfig& model) {
    model.rope = {.type = RopeType::kYarn, .factor = 4, .original_max_position_embeddings = 32};
  });
  vary("yarn with mscale, not truncated", [](ModelConfig& model) {
    model.rope = {.type = RopeType::kYarn,
                  .factor = 4,
                  .original_max_position_embeddings = 32,
                  .mscale = 0.7,
                  .mscale_all_dim = 1.3,
                  .truncate = false};
  });
  vary("yarn with attention_factor", [](ModelConfig& model) {
    model.rope = {
        .type = RopeType::kYarn, .factor = 4, .original_max_position_embeddings = 32, .attention_factor = 1.2};
  });
  return all;
}

// An engine that runs one-token steps of slot 0 in block 0; for tests of everything but numbers.
struct PlainEngine {
  TinyModel model = random_model(tiny_config(), 5);
  std::unique_ptr<Engine> engine = load_engine(write_engine(model), {.num_threads = 2, .max_steps_in_flight = 12});
  StepDriver steps{*engine};
  std::vector<int32_t> tokens = {4};
  std::vector<int32_t> blocks = {0};
  SequenceSlice slice = {.slot = 0, .tokens = tokens, .past_length = 0, .new_block_ids = blocks};

  StepOutput run() { return steps.run({slice}); }
};

}  // namespace

TEST(every_variation_equals_the_reference) {
  for (const Variation& variation : variations()) {
    check_alone(random_model(variation.config, 11), variation.name, 100, 100);
  }
}

TEST(chunking_does_not_change_the_result) {
  for (const Variation& variation : variations()) {
    check_alone(random_model(variation.config, 12), variation.name, 75, 13);
  }
}

TEST(block_size_does_not_change_the_result) {
  for (const int32_t tokens_per_block : {1, 2, 4, 8, 32, 64, 128, 512}) {
    EngineConfig config = tiny_config();
    config.build.tokens_per_block = tokens_per_block;
    config.model.layer_windows = {0, 70};
    for (const int32_t chunk : {1, 37, 150}) {
      check_alone(random_model(config, 13), concat("blocks of ", tokens_per_block, ", chunks of ", chunk), 150, chunk);
    }
  }
}

TEST(sequences_in_a_mixed_batch_equal_each_alone_whatever_the_cache_held_before) {
  for (const uint32_t seed : {1, 2, 3, 4, 5, 6}) {
    EngineConfig config = tiny_config();
    config.build.tokens_per_block = 1 << (2 * (seed % 4));
    config.model.rope = {.type = RopeType::kDynamic, .factor = 3};
    config.model.layer_windows = {0, 30};
    TinyModel model = random_model(config, seed);
    // The last token of the vocabulary turns everything that its sequence writes into NaN.
    auto& embedding = model.weights["transformer.vocab_embedding.weight"];
    std::fill(embedding.end() - config.model.hidden_size, embedding.end(), std::numeric_limits<float>::quiet_NaN());
    const auto engine = load_engine(write_engine(model), {.num_threads = 2});

    StepDriver steps(*engine);

    std::mt19937 generator(seed);
    const int32_t nan_token = config.model.vocab_size - 1;
    std::vector<int32_t> all_blocks(engine->info().num_blocks);
    std::iota(all_blocks.begin(), all_blocks.end(), 0);
    const int32_t tokens_per_block = config.build.tokens_per_block;
    const int32_t most_blocks = config.build.max_seq_len / tokens_per_block;
    const std::vector<int32_t> poison(most_blocks * tokens_per_block, nan_token);
    for (size_t first = 0; first < all_blocks.size(); first += most_blocks) {
      const auto blocks =
          std::span(all_blocks).subspan(first, std::min<size_t>(most_blocks, all_blocks.size() - first));
      const SequenceSlice slice = {.slot = 0,
                                   .tokens = std::span(poison).first(blocks.size() * tokens_per_block),
                                   .past_length = 0,
                                   .new_block_ids = blocks};
      CHECK_EQ(steps.run({slice}).tokens.size(), 1u);
    }

    BlockPool blocks(*engine, generator);
    std::vector<RunningSequence> sequences;
    for (const int32_t slot : {4, 0, 2, 1, 3}) {
      const int32_t length = 20 + static_cast<int32_t>(generator() % 100);
      sequences.push_back({slot, random_tokens(length, generator), length - 10, blocks.take(length)});
      steps.set_up(slot, {}, std::span(sequences.back().tokens).first(length - 10));
    }
    const auto is_running = [](const RunningSequence& sequence) { return sequence.left() > 0; };
    while (std::any_of(sequences.begin(), sequences.end(), is_running)) {
      std::vector<int32_t> counts;
      for (const RunningSequence& sequence : sequences) {
        const int32_t wanted = generator() % 3 == 0 ? 1 + generator() % 30 : generator() % 2;
        counts.push_back(std::min(wanted, sequence.left()));
      }
      run_step(*engine, steps, sequences, counts);
    }
    for (const RunningSequence& sequence : sequences) check_logits(model, sequence, concat("seed ", seed));
  }
}

TEST(greedy_tokens_follow_the_logits_in_the_order_of_the_input) {
  PlainEngine plain;
  std::mt19937 generator(3);
  BlockPool blocks(*plain.engine, generator);
  std::vector<RunningSequence> sequences;
  for (const int32_t slot : {2, 0, 4}) sequences.push_back({slot, random_tokens(20, generator), 20, blocks.take(20)});
  std::vector<SequenceSlice> slices;
  for (const RunningSequence& sequence : sequences) slices.push_back(sequence.slice(20));
  slices[0].samples = slices[2].samples = true;
  const StepOutput output = plain.steps.run(slices);
  CHECK_EQ(output.tokens.size(), 2u);
  for (const int i : {0, 1}) {
    const RunningSequence& sequence = sequences[2 * i];
    const auto last = reference_logits(plain.model, sequence.tokens, 20).back();
    CHECK_EQ(output.tokens[i].slot, sequence.slot);
    CHECK_EQ(output.tokens[i].token, std::max_element(last.begin(), last.end()) - last.begin());
  }
}

TEST(previous_token_continues_a_slot_before_its_step_was_finished) {
  PlainEngine plain;
  std::vector<int32_t> expected;
  for (int32_t i = 0; i < 12; ++i) {
    expected.push_back(plain.run().tokens[0].token);
    plain.tokens[0] = expected.back();
    ++plain.slice.past_length;
  }
  plain.steps.set_up(0, {}, std::vector<int32_t>{4});
  const std::vector<int32_t> first = {4}, next = {kPreviousToken};
  for (int32_t i = 0; i < 12; ++i) {
    plain.slice.past_length = i;
    plain.slice.tokens = i == 0 ? first : next;
    plain.steps.launch({plain.slice});
  }
  CHECK_ERROR(plain.steps.launch(), kInvalid, "12 steps are in flight");
  for (int32_t i = 0; i < 12; ++i) CHECK_EQ(plain.engine->finish().tokens[0].token, expected[i]);

  plain.steps.set_up(0, {}, std::vector<int32_t>{4});
  CHECK_ERROR(plain.run(), kInvalid, "no previous token");
}

TEST(copied_blocks_continue_a_sequence_elsewhere) {
  PlainEngine plain;
  std::mt19937 generator(9);
  std::vector<RunningSequence> sequences = {{0, random_tokens(40, generator), 40, {7, 2, 5}}};
  run_step(*plain.engine, plain.steps, sequences, {30});
  plain.steps.copy({{7, 1}, {2, 3}, {1, 4}});
  sequences[0].block_ids = {4, 3, 6};
  run_step(*plain.engine, plain.steps, sequences, {10});
  check_logits(plain.model, sequences[0], "copied");
  plain.steps.copy({{0, plain.engine->info().num_blocks}});
  CHECK_ERROR(plain.steps.launch(), kInvalid, "blocks");
}

TEST(logits_that_are_not_numbers_still_give_a_token) {
  PlainEngine plain;
  for (auto& [name, weights] : plain.model.weights) {
    if (name == "lm_head.weight") std::fill(weights.begin(), weights.end(), std::numeric_limits<float>::infinity());
  }
  const auto engine = load_engine(write_engine(plain.model));
  const int32_t token = StepDriver(*engine).run({plain.slice}).tokens[0].token;
  CHECK(token >= 0 && token < engine->info().vocab_size);
}

TEST(invalid_steps_are_rejected_and_change_nothing) {
  PlainEngine plain;
  const int32_t expected = plain.run().tokens[0].token;
  const auto rejects = [&](auto change, const std::string& message) {
    SequenceSlice slice = plain.slice;
    change(slice);
    CHECK_ERROR(plain.steps.run({slice}), kInvalid, message);
  };
  const std::vector<int32_t> too_large = {71}, negative = {-2}, late_previous = {4, kPreviousToken},
                             bad_block = {100000};
  const std::vector<int32_t> long_chunk(161, 4);
  std::vector<int32_t> many_blocks(11, 0);
  rejects([](SequenceSlice& slice) { slice.slot = 5; }, "slot of a setup is 5");
  rejects([](SequenceSlice& slice) { slice.slot = -1; }, "slot of a setup is -1");
  rejects([](SequenceSlice& slice) { slice.tokens = {}; }, "no tokens");
  rejects([&](SequenceSlice& slice) { slice.tokens = too_large; }, "token id 71");
  rejects([&](SequenceSlice& slice) { slice.tokens = negative; }, "token id -2");
  rejects([&](SequenceSlice& slice) { slice.tokens = late_previous; }, "token id -1");
  rejects([](SequenceSlice& slice) { slice.past_length = -1; }, "past_length");
  rejects([](SequenceSlice& slice) { slice.past_length = 16; }, "blocks do not hold");
  rejects([](SequenceSlice& slice) { slice.past_length = 150; }, "max_seq_len is 150");
  rejects([](SequenceSlice& slice) { slice.past_length = INT32_MAX; }, "max_seq_len is 150");
  rejects([&](SequenceSlice& slice) { slice.new_block_ids = bad_block; }, "block 100000");

  std::vector<SequenceSlice> twice = {plain.slice, plain.slice};
  CHECK_ERROR(plain.engine->launch({.slices = twice}), kInvalid, "twice");
  CHECK_ERROR(plain.steps.launch(std::vector<SequenceSlice>(6, plain.slice)), kInvalid, "6 sequences");
  const std::vector<int32_t> half_chunk(81, 4);
  for (SequenceSlice& slice : twice) {
    slice.tokens = half_chunk;
    slice.new_block_ids = many_blocks;
  }
  twice[1].slot = 1;
  CHECK_ERROR(plain.steps.launch(twice), kInvalid, "162 tokens");
  CHECK_ERROR(plain.engine->finish(), kInvalid, "no step is in flight");

  CHECK_EQ(plain.run().tokens[0].token, expected);
  CHECK(plain.steps.run({}).tokens.empty());
}

TEST(an_engine_may_go_while_steps_are_in_flight) {
  for (int i = 0; i < 20; ++i) {
    PlainEngine plain;
    for (int step = 0; step < 5; ++step) plain.steps.launch({plain.slice});
    plain.engine.reset();
  }
}

TEST(cache_memory_decides_the_number_of_blocks) {
  const TinyModel model = random_model(tiny_config(), 5);
  const auto directory = write_engine(model);
  const auto engine = load_engine(directory);
  const int64_t bytes_per_block = 2 * 2 * 2 * 16 * 22 * 4;  // layers, keys and values, heads, tokens, head size, float
  CHECK_EQ(engine->info().kv_bytes_per_block, bytes_per_block);
  CHECK_EQ(engine->info().num_blocks, (1 << 20) / bytes_per_block);
  CHECK_EQ(load_engine(directory, {.max_tokens_in_kv_cache = 100})->info().num_blocks, 6);
  CHECK_ERROR(load_engine(directory, {.max_tokens_in_kv_cache = 15}), kInvalid, "max_tokens_in_paged_kv_cache is 15");
  EngineConfig small = tiny_config();
  small.build.kv_cache_bytes = 1000;
  CHECK_ERROR(load_engine(write_engine(random_model(small, 5))), kInvalid, "kv_cache_bytes is 1000");
}

TEST(limits_beyond_the_machine_are_an_error) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their operator new never throws
  EngineConfig config = tiny_config();
  config.build.max_num_tokens = INT32_MAX;
  CHECK_ERROR(load_engine(write_engine(random_model(config, 5))), ErrorCode::kUnavailable, "--max-num-tokens");
#endif
  const auto directory = write_engine(random_model(tiny_config(), 5));
  CHECK_ERROR(load_engine(directory, {.max_tokens_in_kv_cache = INT64_MAX}), ErrorCode::kUnavailable,
              "--kv-cache-memory");
}

TEST(weights_that_do_not_fit_the_config_are_refused_by_name) {
  TinyModel model = random_model(tiny_config(), 5);
  model.weights.erase("transformer.layers.1.mlp.down.weight");
  CHECK_ERROR(load_engine(write_engine(model)), ErrorCode::kNotFound, "transformer.layers.1.mlp.down.weight");
  model = random_model(tiny_config(), 5);
  model.config.model.vocab_size = 72;
  CHECK_ERROR(load_engine(write_engine(model)), kInvalid, "transformer.vocab_embedding.weight' is [71, 45]");
  model = random_model(tiny_config(), 5);
  model.weights["transformer.ln_f.weight"].pop_back();
  CHECK_ERROR(load_engine(write_engine(model)), kInvalid, "'transformer.ln_f.weight' must be F32 of 45");
}

TEST_MAIN()
