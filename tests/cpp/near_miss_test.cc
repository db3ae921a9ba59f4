#include "common/near_miss.h"

#include "check.h"

using inflight::near_miss;

namespace {

constexpr std::string_view kKnown[] = {"temperature", "max_tokens",     "min_length", "top_k",  "top_p",  "min_p",
                                       "stream",      "stop_words",     "bad_words",  "end_id", "pad_id", "beam_width",
                                       "random_seed", "length_penalty", "text_input", "timeout"};

}  // namespace

TEST(a_slip_of_the_pen_is_recognized) {
  CHECK_EQ(near_miss("temprature", kKnown), "temperature");
  CHECK_EQ(near_miss("temparature", kKnown), "temperature");
  CHECK_EQ(near_miss("tempreature", kKnown), "temperature");
  CHECK_EQ(near_miss("Temperature", kKnown), "temperature");
  CHECK_EQ(near_miss("max_token", kKnown), "max_tokens");
  CHECK_EQ(near_miss("maxTokens", kKnown), "max_tokens");
  CHECK_EQ(near_miss("max_tokesn", kKnown), "max_tokens");
  CHECK_EQ(near_miss("topk", kKnown), "top_k");
  CHECK_EQ(near_miss("top-p", kKnown), "top_p");
  CHECK_EQ(near_miss("steam", kKnown), "stream");
  CHECK_EQ(near_miss("stop_word", kKnown), "stop_words");
  CHECK_EQ(near_miss("lenght_penalty", kKnown), "length_penalty");
  CHECK_EQ(near_miss("time_out", kKnown), "timeout");
  CHECK_EQ(near_miss("top_k", kKnown), "top_k");
}

TEST(another_word_is_not) {
  for (const char* name : {"",
                           "n",
                           "id",
                           "max_length",
                           "min_tokens",
                           "top_n",
                           "model",
                           "user",
                           "priority",
                           "best_of",
                           "stop_token_ids",
                           "lora_id",
                           "sequence_id",
                           "triton_enable_empty_final_response",
                           "echo",
                           "max_new_tokens",
                           "seed",
                           "logprobs",
                           "prompt",
                           "tools",
                           "\xff\xfe"}) {
    CHECK_EQ(near_miss(name, kKnown), "");
  }
}

TEST_MAIN()
