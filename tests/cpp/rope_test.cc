#include "engine/cpu/rope.h"

#include <array>

#include "check.h"

using namespace inflight;

namespace {

using Rotation = std::array<float, 8>;

// What transformers 5.23's LlamaRotaryEmbedding gives for head_dim 16 and max_position_embeddings 128.
void check_rotation(const RopeConfig& rope, int32_t prompt_length, int32_t position, const Rotation& expected_cos,
                    const Rotation& expected_sin) {
  ModelConfig config{};
  config.head_size = 16;
  config.max_position_embeddings = 128;
  config.rope = rope;
  Rotation cos, sin;
  cpu::RotaryEmbedding(config).rotation(position, prompt_length, cos, sin);
  for (size_t i = 0; i < cos.size(); ++i) {
    CHECK(std::abs(cos[i] - expected_cos[i]) < 1e-6);
    CHECK(std::abs(sin[i] - expected_sin[i]) < 1e-6);
  }
}

}  // namespace

TEST(default_rotations) {
  check_rotation(
      {}, 118, 117,
      {-0.724097192f, 0.764544308f, 0.64759618f, -0.848171473f, 0.390151739f, 0.932332218f, 0.993163288f, 0.999315619f},
      {-0.689697921f, -0.644571185f, -0.761983693f, -0.529721737f, 0.920750558f, 0.361602843f, 0.116733253f,
       0.0369902104f});
}

TEST(linear_scaling) {
  check_rotation({.type = RopeType::kLinear, .factor = 2.5}, 118, 117,
                 {-0.948004425f, -0.614925563f, -0.0323834904f, 0.0907253847f, 0.892472267f, 0.989068747f, 0.998905063f,
                  0.999890506f},
                 {0.318257242f, 0.788585186f, -0.999475539f, 0.995875955f, 0.451102227f, 0.147454962f, 0.046782922f,
                  0.0147989197f});
}

TEST(dynamic_scaling_takes_the_prompts_length_and_then_each_tokens_own) {
  const RopeConfig rope = {.type = RopeType::kDynamic, .factor = 3};
  check_rotation(rope, 100, 100,
                 {0.862318873f, 0.978682816f, -0.839071512f, -0.999786079f, 0.540302336f, 0.950415254f, 0.995004177f,
                  0.999500036f},
                 {-0.506365657f, 0.205377579f, -0.54402113f, -0.0206838083f, 0.841470957f, 0.310983628f, 0.0998334214f,
                  0.0316175073f});
  check_rotation(
      rope, 150, 120,
      {0.81418097f, -0.361205906f, -0.333331078f, -0.999431968f, 0.58476454f, 0.960511982f, 0.996472299f, 0.999686599f},
      {0.580611169f, -0.932486057f, -0.94280982f, -0.033701323f, 0.811203063f, 0.278238565f, 0.0839222595f,
       0.0250348002f});
  check_rotation(
      rope, 150, 150,
      {0.699250817f, 0.814884782f, 0.768033504f, -0.695619345f, 0.38791132f, 0.939849257f, 0.994632721f, 0.99952507f},
      {-0.714876413f, 0.579622924f, 0.640409648f, -0.718410552f, 0.921696723f, 0.341589481f, 0.103468448f,
       0.0308152903f});
}

TEST(llama3_scaling) {
  check_rotation(
      {.type = RopeType::kLlama3,
       .theta = 5e5,
       .factor = 8,
       .original_max_position_embeddings = 64,
       .low_freq_factor = 1,
       .high_freq_factor = 4},
      118, 117,
      {-0.724097192f, -0.990951657f, 0.852530658f, 0.99431771f, 0.999786139f, 0.999991953f, 0.999999702f, 1.0f},
      {-0.689697921f, 0.134219125f, 0.522677183f, 0.106453136f, 0.0206813961f, 0.00401086919f, 0.000777800684f,
       0.000150833264f});
}

TEST(yarn_scaling) {
  check_rotation(
      {.type = RopeType::kYarn, .factor = 4, .original_max_position_embeddings = 32}, 118, 117,
      {-0.824478388f, -0.482709199f, -1.11202574f, 0.685297251f, 1.0902673f, 1.133762f, 1.13814235f, 1.13858068f},
      {-0.785310328f, -1.0312463f, 0.244695097f, 0.909309983f, 0.328320295f, 0.105169266f, 0.0333001651f,
       0.0105317878f});
}

TEST(yarn_scaling_with_mscale_and_without_truncation) {
  check_rotation({.type = RopeType::kYarn,
                  .factor = 4,
                  .original_max_position_embeddings = 32,
                  .mscale = 0.7,
                  .mscale_all_dim = 1.3,
                  .truncate = false},
                 118, 117,
                 {-0.673065305f, 0.0878019035f, -0.907805443f, 0.559444427f, 0.890042901f, 0.925549984f, 0.929125845f,
                  0.929483712f},
                 {-0.641090393f, -0.925367355f, 0.199757561f, 0.742317855f, 0.268025219f, 0.0858552381f, 0.0271846857f,
                  0.00859765615f});
}

TEST_MAIN()
