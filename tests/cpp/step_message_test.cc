#include "engine/step_message.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "check.h"

using namespace inflight;
using namespace inflight::test;

namespace {

std::vector<std::byte> bytes_of(const StepInput& input) {
  std::vector<std::byte> bytes;
  write_step(input, bytes);
  return bytes;
}

// A step with something in every field.
struct WholeStep {
  std::vector<BlockCopy> copies = {{1, 2}, {3, 4}};
  std::vector<int32_t> prompt = {5, 6, 7}, generated = {8}, tokens = {kPreviousToken, 9, 10},
                       blocks = {11, kFreedBlock};
  std::vector<uint32_t> mask = {0xf0f0f0f0, 1};
  SamplingConfig sampling = {.top_k = 1,
                             .top_p = 0.5f,
                             .min_p = 0.25f,
                             .temperature = 2.0f,
                             .random_seed = uint64_t{1} << 60,
                             .top_p_decay = 0.75f,
                             .top_p_min = 0.125f,
                             .top_p_reset_id = 3,
                             .repetition_penalty = 1.5f,
                             .presence_penalty = 0.5f,
                             .frequency_penalty = 0.25f,
                             .min_length = 4,
                             .end_ids = {1, 2},
                             .bad_words = {{7}, {8, 9}, {8, 9, 10}},
                             .embedding_bias = std::make_shared<const std::vector<float>>(std::vector<float>{1, 2}),
                             .return_log_probs = true,
                             .num_top_log_probs = 0,
                             .num_candidates = 5};
  std::vector<SlotSetup> setups = {{.slot = 1, .sampling = sampling, .prompt = prompt, .generated = generated},
                                   {.slot = 2},
                                   {.slot = 3, .parent = 1, .num_parent_blocks = 6}};
  std::vector<SequenceSlice> slices = {
      {.slot = 1,
       .tokens = tokens,
       .past_length = 12,
       .new_block_ids = blocks,
       .samples = true,
       .num_drafts = 2,
       .returned_logits = ReturnedLogits::kAll},
      {.slot = 2, .tokens = prompt, .past_length = 0, .new_block_ids = {}, .samples = false, .mask = mask}};
  StepInput input() const { return {copies, setups, slices}; }
};

bool are_equal(const auto& a, const auto& b) { return std::ranges::equal(a, b); }

void check_equal(const StepInput& got, const StepInput& expected) {
  CHECK(std::ranges::equal(got.copies, expected.copies, [](const BlockCopy& a, const BlockCopy& b) {
    return a.source == b.source && a.destination == b.destination;
  }));
  CHECK_EQ(got.setups.size(), expected.setups.size());
  for (size_t i = 0; i < got.setups.size(); ++i) {
    const SlotSetup &a = got.setups[i], &b = expected.setups[i];
    CHECK(a.slot == b.slot && a.parent == b.parent && a.num_parent_blocks == b.num_parent_blocks);
    CHECK(are_equal(a.prompt, b.prompt) && are_equal(a.generated, b.generated));
    CHECK(a.sampling.end_ids == b.sampling.end_ids);
    CHECK(a.sampling.num_top_log_probs == b.sampling.num_top_log_probs);
    CHECK_EQ(a.sampling.bad_words.list().size(), b.sampling.bad_words.list().size());
    CHECK_EQ(a.sampling.embedding_bias == nullptr, b.sampling.embedding_bias == nullptr);
    if (a.sampling.embedding_bias) CHECK(*a.sampling.embedding_bias == *b.sampling.embedding_bias);
  }
  CHECK_EQ(got.slices.size(), expected.slices.size());
  for (size_t i = 0; i < got.slices.size(); ++i) {
    const SequenceSlice &a = got.slices[i], &b = expected.slices[i];
    CHECK(a.slot == b.slot && a.past_length == b.past_length && a.samples == b.samples);
    CHECK(a.num_drafts == b.num_drafts && a.returned_logits == b.returned_logits);
    CHECK(are_equal(a.tokens, b.tokens) && are_equal(a.new_block_ids, b.new_block_ids) && are_equal(a.mask, b.mask));
  }
  CHECK(bytes_of(got) == bytes_of(expected));
}

}  // namespace

TEST(a_step_comes_back_from_its_bytes_as_it_was) {
  const WholeStep whole;
  StepMessage message;
  for (const StepInput& input : {whole.input(), StepInput{}, whole.input()}) {
    message.read(bytes_of(input));
    check_equal(message.input(), input);
  }
  const SamplingConfig& sampling = message.input().setups[0].sampling;
  CHECK_EQ(sampling.random_seed, uint64_t{1} << 60);
  CHECK_EQ(sampling.min_p, 0.25f);
  CHECK_EQ(sampling.num_candidates, 5);
  CHECK(sampling.return_log_probs);
}

TEST(a_copy_of_a_step_outlives_it) {
  StepMessage message;
  auto whole = std::make_unique<WholeStep>();
  const auto bytes = bytes_of(whole->input());
  message.assign(whole->input());
  whole.reset();
  CHECK(bytes_of(message.input()) == bytes);
}

TEST(every_cut_of_a_message_is_refused_and_every_damage_read_or_refused) {
  const auto bytes = bytes_of(WholeStep().input());
  StepMessage message;
  for (size_t size = 0; size < bytes.size(); ++size) {
    CHECK_ERROR(message.read(std::span(bytes).first(size)), ErrorCode::kInvalidArgument, "a step's message is damaged");
  }
  auto longer = bytes;
  longer.emplace_back();
  CHECK_ERROR(message.read(longer), ErrorCode::kInvalidArgument, "1 bytes follow it");
  int num_refused = 0;
  for (size_t place = 0; place < bytes.size(); ++place) {
    for (const int change : {1, 0x80, 0xff}) {
      auto damaged = bytes;
      damaged[place] ^= static_cast<std::byte>(change);
      try {
        message.read(damaged);
        bytes_of(message.input());
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kInvalidArgument);
        ++num_refused;
      }
    }
  }
  CHECK(num_refused > 100);
}

TEST_MAIN()
