// Operations as a plan holds them: nothing here needs a GPU.

#include "engine/tensorrt/operations/operations.h"

#include <algorithm>

#include "check.h"
#include "engine/tensorrt/decoder.h"

using namespace inflight;
using namespace inflight::gpu;

namespace {

std::vector<std::unique_ptr<Operation>> every_operation() {
  std::vector<std::unique_ptr<Operation>> all;
  for (const GemmEpilogue epilogue : {GemmEpilogue::kStore, GemmEpilogue::kAddResidual, GemmEpilogue::kSwiGlu}) {
    all.push_back(
        make_gemm({GemmType::kBFloat16, GemmType::kBFloat16, epilogue, 512, 256},
                  {{1, GemmMethod::kSkinny, {}, 2.5f}, {64, GemmMethod::kCublasLt, {1, 2, 3, 4, 5, 6, 7, 8}, 4}}));
  }
  all.push_back(make_gemm({GemmType::kFloat8E4M3, GemmType::kFloat16, GemmEpilogue::kAddResidual, 64, 32}, {}));
  all.push_back(make_rms_norm({ElementType::kBFloat16, 576, 1e-6f}));
  all.push_back(make_activation({ElementType::kFloat16, Activation::kGeluTanh, 1, 1536}));
  all.push_back(make_embedding({ElementType::kBFloat16, 576, 49152, 0.5f}));
  all.push_back(make_attention({.type = ElementType::kBFloat16,
                                .cache_type = ElementType::kFloat8E4M3,
                                .query_heads = 9,
                                .kv_heads = 3,
                                .head_size = 64,
                                .rotary_size = 32,
                                .is_interleaved = 1,
                                .tokens_per_block = 32,
                                .window = 4096,
                                .sinks = 4,
                                .scale = 0.125f,
                                .scores = Scores::kSoftCap,
                                .soft_cap = 50,
                                .key_scale = 0.5f,
                                .value_scale = 0.25f}));
  all.push_back(make_sampling({ElementType::kBFloat16, 49152}));
  return all;
}

std::string message_of(std::string_view type, std::span<const std::byte> constants) {
  try {
    read_operation(type, constants);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST(an_operation_read_from_its_constants_is_the_same) {
  for (const auto& operation : every_operation()) {
    const auto constants = operation->constants();
    const auto again = read_operation(operation->type(), constants);
    CHECK(again->type() == operation->type());
    CHECK(again->constants() == constants);
    CHECK(again->input_types() == operation->input_types());
    CHECK_EQ(again->output().columns, operation->output().columns);
    CHECK(operation->copy()->constants() == constants);
  }
}

TEST(constants_that_are_cut_off_or_too_long_are_an_error) {
  for (const auto& operation : every_operation()) {
    auto constants = operation->constants();
    for (size_t length = 0; length < constants.size(); ++length) {
      CHECK(message_of(operation->type(), std::span(constants).first(length)).find("are cut off") != std::string::npos);
    }
    constants.push_back({});
    CHECK(message_of(operation->type(), constants).find("are too long") != std::string::npos);
  }
}

TEST(a_type_that_there_is_not_is_an_error) {
  CHECK(message_of("convolution", {}).find("a plugin of the type 'convolution'") != std::string::npos);
}

TEST(an_output_has_the_rows_of_its_input) {
  const auto all = every_operation();
  CHECK_EQ(all[0]->output().columns, 512);
  CHECK_EQ(all[2]->output().columns, 256);  // SwiGLU takes two columns for one
  CHECK_EQ(all[2]->input_types().size(), 2u);
  CHECK_EQ(all[3]->input_types().size(), 5u);  // a residual and two scales
  CHECK_EQ(make_embedding({ElementType::kBFloat16, 576, 0, 1})->output().rows_of_input, 1);
  CHECK_EQ(make_sampling({ElementType::kBFloat16, 49152})->output().columns, 0);
}

TEST(the_workspace_of_attention_grows_with_the_tokens) {
  const auto all = every_operation();
  const auto& attention = *std::ranges::find_if(all, [](const auto& each) { return each->type() == "attention"; });
  std::vector<Shape> shapes(kNumAttentionInputs, Shape{1, {1}});
  shapes[kQkv] = {2, {8, 15 * 64}};
  const size_t few = attention->workspace_bytes(shapes);
  shapes[kQkv].sizes[0] = 8000;
  CHECK(attention->workspace_bytes(shapes) >= few + size_t{7992} * 9 * 64 * 2 - 256);
}

TEST_MAIN()
