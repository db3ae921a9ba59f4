#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <thread>

#include "check.h"
#include "engine/engine.h"
#include "step_driver.h"
#include "tiny_model.h"

using namespace inflight;
using namespace inflight::test;

namespace {

constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;
constexpr int64_t kBlockBytes = 2 * 2 * 2 * 16 * 22 * 4;  // layers, keys and values, heads, tokens, head size, float

std::vector<int32_t> random_tokens(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = 3 + static_cast<int32_t>(generator() % 60);
  return tokens;
}

// One sequence that is fed token by token; its logits are compared with the reference.
struct Sequence {
  std::vector<int32_t> tokens;
  std::vector<int32_t> block_ids;
  int32_t past_length = 0;
  std::vector<float> logits = {};

  SequenceSlice slice(int32_t count) const {
    return {.slot = 0,
            .tokens = std::span(tokens).subspan(past_length, count),
            .past_length = past_length,
            .new_block_ids = block_ids,
            .samples = false,
            .returned_logits = ReturnedLogits::kAll};
  }
  void feed(StepDriver& steps, int32_t count) {
    const StepOutput output = steps.run({slice(count)});
    logits.insert(logits.end(), output.logits.begin(), output.logits.end());
    past_length += count;
  }
};

void check_logits(const TinyModel& model, const Sequence& sequence, int32_t sink_tokens, const std::string& what) {
  const auto expected = reference_logits(model, sequence.tokens, 1, sink_tokens);
  CHECK_EQ(sequence.logits.size(), expected.size() * 71);
  for (size_t i = 0; i < sequence.logits.size(); ++i) {
    const double error = std::abs(sequence.logits[i] - expected[i / 71][i % 71]);
    if (!(error < 2e-4)) fail(__FILE__, __LINE__, concat(what, ": token ", i / 71, " is off by ", error));
  }
}

// A model whose last token turns everything that its sequence writes into NaN.
TinyModel poisonable_model(const EngineConfig& config) {
  TinyModel model = random_model(config, 5);
  auto& embedding = model.weights["transformer.vocab_embedding.weight"];
  std::fill(embedding.end() - config.model.hidden_size, embedding.end(), std::numeric_limits<float>::quiet_NaN());
  return model;
}

void poison(StepDriver& steps, const std::vector<int32_t>& blocks) {
  const std::vector<int32_t> tokens(blocks.size() * tiny_config().build.tokens_per_block, 70);
  steps.run({{.slot = 1, .tokens = tokens, .past_length = 0, .new_block_ids = blocks}});
}

void wait_until_copied(Engine& engine, StepNumber step) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!engine.is_copied(step)) {
    CHECK(std::chrono::steady_clock::now() < deadline);
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

std::vector<int32_t> iota(int32_t first, int32_t count) {
  std::vector<int32_t> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

}  // namespace

TEST(windows_and_sinks_equal_the_reference_though_blocks_are_freed) {
  struct Case {
    std::vector<int32_t> model_windows, max_windows;
    int32_t sink_tokens;
    std::vector<int32_t> expected;
  };
  const Case cases[] = {{{0, 0}, {16}, 0, {16, 16}},      {{0, 0}, {20, 33}, 0, {20, 33}},
                        {{0, 0}, {40, 0}, 5, {40, 0}},    {{30, 0}, {50, 20}, 7, {30, 20}},
                        {{0, 0}, {32}, 17, {32, 32}},     {{18, 25}, {}, 16, {18, 25}},
                        {{0, 24}, {150, 70}, 1, {0, 24}}, {{0, 0}, {16, 70}, 15, {16, 70}}};
  for (const Case& test : cases) {
    for (const int32_t tokens_per_block : {1, 4, 16}) {
      EngineConfig config = tiny_config();
      config.build.tokens_per_block = tokens_per_block;
      config.model.layer_windows = test.model_windows;
      TinyModel model = poisonable_model(config);
      const auto engine =
          load_engine(write_engine(model),
                      {.num_threads = 2, .max_attention_windows = test.max_windows, .sink_tokens = test.sink_tokens});
      model.config.model.layer_windows = test.expected;
      const bool is_bounded = std::ranges::find(test.expected, 0) == test.expected.end();
      const int32_t window = is_bounded ? std::ranges::max(test.expected) : 0;
      CHECK_EQ(engine->info().attention_window, window);
      CHECK_EQ(engine->info().sink_tokens, test.sink_tokens);

      for (const int32_t chunk : {1, 13, 75, 150}) {
        Sequence sequence{random_tokens(150, 3), iota(0, 150 / tokens_per_block + 1)};
        StepDriver steps(*engine);
        steps.set_up(0, {}, std::span(sequence.tokens).first(1));
        while (sequence.past_length < 150) {
          sequence.feed(steps, std::min(chunk, 150 - sequence.past_length));
          for (int32_t i = 0; window > 0 && i < static_cast<int32_t>(sequence.block_ids.size()); ++i) {
            const bool is_left = (i + 1) * tokens_per_block <= sequence.past_length - window + 1;
            if (is_left && i * tokens_per_block >= test.sink_tokens) sequence.block_ids[i] = kFreedBlock;
          }
        }
        CHECK_EQ(std::ranges::count(sequence.block_ids, kFreedBlock) > 0, window > 0);
        check_logits(model, sequence, test.sink_tokens,
                     concat("windows of ", test.expected[0], " and ", test.expected[1], ", chunks of ", chunk));
      }
    }
  }
}

TEST(a_block_that_some_token_sees_may_not_be_freed) {
  const auto directory = write_engine(random_model(tiny_config(), 5));
  const auto rejects = [&](Engine& engine, int32_t past_length, int32_t freed) {
    StepDriver steps(engine);
    Sequence sequence{random_tokens(150, 3), iota(0, 10), past_length};
    sequence.block_ids[freed] = kFreedBlock;
    try {
      sequence.feed(steps, 1);
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find(concat("block ", freed, " of its list is freed")) != std::string::npos);
      return true;
    }
    return false;
  };
  const auto full = load_engine(directory);
  CHECK(rejects(*full, 149, 0));
  // At position 80 a window of 40 begins with position 41, sinks of 17 tokens end in the second block.
  const auto windowed = load_engine(directory, {.max_attention_windows = {40}, .sink_tokens = 17});
  CHECK(rejects(*windowed, 80, 0));
  CHECK(rejects(*windowed, 80, 1));
  CHECK(rejects(*windowed, 86, 2));
  CHECK(!rejects(*windowed, 87, 2));
  CHECK(rejects(*windowed, 87, 3));
  CHECK(rejects(*windowed, 87, 5));
}

TEST(windows_and_sinks_that_do_not_fit_are_refused_by_name) {
  const auto directory = write_engine(random_model(tiny_config(), 5));
  const auto rejects = [&](const std::vector<int32_t>& windows, int32_t sinks, const std::string& message) {
    CHECK_ERROR(load_engine(directory, {.max_attention_windows = windows, .sink_tokens = sinks}), kInvalid, message);
  };
  rejects({15}, 0, "max_attention_window_size is 15; it must be 0, for all tokens, or at least");
  rejects({0, -1}, 0, "max_attention_window_size is -1");
  rejects({16, 16, 16}, 0, "max_attention_window_size has 3 values; the model has 2 layers");
  rejects({20, 40}, 20, "sink_token_length is 20");
  rejects({}, -1, "sink_token_length is -1");
  CHECK_EQ(load_engine(directory, {.max_attention_windows = {150}, .sink_tokens = 200})->info().attention_window, 0);
  CHECK_EQ(load_engine(directory, {.max_attention_windows = {149, 20}})->info().attention_window, 149);
}

TEST(copies_chain_within_one_step) {
  const TinyModel model = poisonable_model(tiny_config());
  const auto engine = load_engine(write_engine(model), {.num_threads = 2});
  StepDriver steps(*engine);
  Sequence sequence{random_tokens(48, 1), {7, 2, 5}};
  sequence.feed(steps, 32);
  poison(steps, {1, 3, 4, 6});
  steps.copy({{7, 1}, {2, 3}, {1, 4}, {6, 6}});
  poison(steps, {7, 2});
  sequence.block_ids = {4, 3, 6};
  sequence.feed(steps, 16);
  check_logits(model, sequence, 0, "copied");
}

TEST(blocks_survive_in_the_host_tier) {
  const TinyModel model = poisonable_model(tiny_config());
  const auto engine = load_engine(write_engine(model), {.num_threads = 2, .kv_cache_host_bytes = 7 * kBlockBytes + 9});
  const int32_t num_blocks = engine->info().num_blocks;
  CHECK_EQ(engine->info().num_host_blocks, 7);
  StepDriver steps(*engine);
  for (int round = 0; round < 50; ++round) {
    Sequence sequence{random_tokens(64, round), {7, 2, 5}};
    sequence.feed(steps, 48);
    // Blocks may be given to others at once: the copies that read them come first.
    steps.copy({{7, num_blocks}, {2, num_blocks + 6}, {5, num_blocks + 3}});
    poison(steps, {2, 5, 7});
    steps.copy({{num_blocks, 5}, {num_blocks + 6, 7}, {num_blocks + 3, 9}});
    if (round % 2 == 0) {
      const StepNumber back = steps.launch();
      wait_until_copied(*engine, back);
      engine->finish();
    }
    sequence.block_ids = {5, 7, 9, 11};
    sequence.feed(steps, 16);
    check_logits(model, sequence, 0, "from the host tier");
  }
}

TEST(copies_wait_for_the_steps_before_them_and_steps_for_the_copies_of_their_blocks) {
  const TinyModel model = poisonable_model(tiny_config());
  const auto engine = load_engine(write_engine(model),
                                  {.num_threads = 2, .max_steps_in_flight = 3, .kv_cache_host_bytes = 4 * kBlockBytes});
  const int32_t num_blocks = engine->info().num_blocks;
  StepDriver steps(*engine);
  for (int round = 0; round < 20; ++round) {
    Sequence sequence{random_tokens(32, round), {7, 2}};
    steps.launch({sequence.slice(16)});
    steps.copy({{7, num_blocks}, {num_blocks, 8}});
    const std::vector<int32_t> poison_tokens(16, 70), poisoned = {7};
    steps.launch({{.slot = 1, .tokens = poison_tokens, .past_length = 0, .new_block_ids = poisoned}});
    sequence.block_ids = {8, 9};
    sequence.past_length = 16;
    const StepNumber last = steps.launch({sequence.slice(16)});
    for (int step = 0; step < 3; ++step) {  // the one in the middle returns no logits
      const StepOutput output = engine->finish();
      sequence.logits.insert(sequence.logits.end(), output.logits.begin(), output.logits.end());
    }
    check_logits(model, sequence, 0, "copied between two steps");
    CHECK(engine->is_copied(last));
  }
}

TEST(a_step_does_not_wait_for_copies_of_other_blocks) {
  const auto engine = load_engine(write_engine(poisonable_model(tiny_config())), {.num_threads = 2});
  const std::vector<BlockCopy> many(20000, {1, 2});  // some milliseconds
  StepDriver steps(*engine);
  bool was_beside = false;
  for (int round = 0; round < 50 && !was_beside; ++round) {
    steps.copy(many);
    const Sequence sequence{random_tokens(16, 1), {7}};
    const StepNumber step = steps.launch({sequence.slice(16)});
    engine->finish();
    was_beside = !engine->is_copied(step);

    Sequence touching{random_tokens(16, 1), {2}};
    touching.feed(steps, 16);
    CHECK(engine->is_copied(step));
  }
  CHECK(was_beside);
}

TEST(an_engine_may_go_while_copies_are_in_flight) {
  const auto directory = write_engine(poisonable_model(tiny_config()));
  for (int i = 0; i < 10; ++i) {
    const Sequence sequence{random_tokens(16, 1), {2}};
    const auto engine = load_engine(directory, {.num_threads = 2, .max_steps_in_flight = 3});
    StepDriver steps(*engine);
    for (int step = 0; step < 3; ++step) {
      steps.copy(std::vector<BlockCopy>(1000, {1, 2}));
      steps.launch({sequence.slice(16)});
    }
  }
}

TEST(steps_and_copies_beyond_their_blocks_are_rejected) {
  const auto directory = write_engine(random_model(tiny_config(), 5));
  const auto engine = load_engine(directory, {.kv_cache_host_bytes = 3 * kBlockBytes});
  const int32_t num_blocks = engine->info().num_blocks;
  StepDriver steps(*engine);
  Sequence sequence{random_tokens(4, 1), {num_blocks}};
  CHECK_ERROR(sequence.feed(steps, 4), kInvalid, concat("block ", num_blocks, "; steps of this engine take blocks"));
  for (const BlockCopy& copy : {BlockCopy{0, num_blocks + 3}, BlockCopy{num_blocks + 3, 0}, BlockCopy{-1, 0}}) {
    CHECK_ERROR(engine->launch({.copies = {&copy, 1}}), kInvalid,
                concat("this engine has ", num_blocks + 3, " blocks"));
  }
}

TEST(a_host_tier_that_does_not_fit_is_refused_by_name) {
  const auto directory = write_engine(random_model(tiny_config(), 5));
  const auto rejects = [&](int64_t bytes, ErrorCode code) {
    CHECK_ERROR(load_engine(directory, {.kv_cache_host_bytes = bytes}), code, "kv_cache_host_memory_bytes");
  };
  rejects(-1, kInvalid);
  rejects(kBlockBytes - 1, kInvalid);
  rejects(INT64_MAX, ErrorCode::kUnavailable);
  rejects(int64_t{1} << 50, ErrorCode::kUnavailable);
  CHECK_EQ(load_engine(directory, {.kv_cache_host_bytes = kBlockBytes})->info().num_host_blocks, 1);
}

TEST_MAIN()
