// How a product's tactics are kept and chosen: nothing here needs a GPU.

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "check.h"
#include "engine/tensorrt/gemm/gemm_shape.h"

using namespace inflight;
using namespace inflight::gpu;

namespace {

constexpr GemmShape kShape{GemmType::kBFloat16, GemmType::kBFloat16, GemmEpilogue::kSwiGlu, 28672, 4096};
const GemmTactics kTactics{{1, GemmMethod::kSkinny, {}, 56.5f},
                           {32, GemmMethod::kSplit, {4}, 60.0f},
                           {256, GemmMethod::kCublasLt, {~0ull, 2, 3, 4, 5, 6, 7, 8}, 97.25f}};

std::filesystem::path scratch_file() {
  const auto folder = std::filesystem::temp_directory_path() / ("timing_cache_test." + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  return folder / "timing.json";
}

}  // namespace

TEST(a_cache_that_is_written_is_read_as_it_was) {
  const auto file = scratch_file();
  TimingCache written("NVIDIA H200", 130100);
  written.insert(kShape, {kTactics[2], kTactics[0], kTactics[1]});
  written.write(file);
  TimingCache read("NVIDIA H200", 130100);
  read.read(file);
  CHECK(read.find(kShape) != nullptr && *read.find(kShape) == kTactics);  // by ascending rows
  GemmShape other = kShape;
  other.epilogue = GemmEpilogue::kStore;
  CHECK(read.find(other) == nullptr);
  std::filesystem::remove_all(file.parent_path());
}

TEST(tactics_of_another_gpu_or_library_are_not_used) {
  const auto file = scratch_file();
  TimingCache written("NVIDIA H200", 130100);
  written.insert(kShape, kTactics);
  written.write(file);
  for (auto& [gpu, version] : {std::pair{"NVIDIA H100", 130100}, {"NVIDIA H200", 130200}}) {
    TimingCache other(gpu, version);
    other.read(file);
    CHECK(other.find(kShape) == nullptr);
  }
  std::filesystem::remove_all(file.parent_path());
}

TEST(a_file_that_is_no_cache_is_an_error_that_names_it) {
  const auto file = scratch_file();
  for (const char* text : {"", "{", "[]", R"({"gpu": "a", "cublaslt_version": 1, "tactics": {"x": [{"rows": 1}]}})",
                           R"({"gpu": "a", "cublaslt_version": 1, "tactics": {"x": [{"rows": 1, "method": "magic",
                               "algorithm": [0,0,0,0,0,0,0,0], "microseconds": 1}]}})"}) {
    std::ofstream(file) << text;
    TimingCache cache("a", 1);
    std::string message;
    try {
      cache.read(file);
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(message.starts_with(file.string() + ": no timing cache of inflight ("));
  }
  std::filesystem::remove(file);
  TimingCache cache("a", 1);
  cache.read(file);  // none yet
  CHECK(cache.find(kShape) == nullptr);
  std::filesystem::remove_all(file.parent_path());
}

TEST(the_tactic_measured_for_enough_rows_is_taken) {
  CHECK_EQ(find_tactic(kTactics, 1)->rows, 1);
  CHECK_EQ(find_tactic(kTactics, 2)->rows, 32);
  CHECK_EQ(find_tactic(kTactics, 32)->rows, 32);
  CHECK_EQ(find_tactic(kTactics, 255)->rows, 256);
  CHECK_EQ(find_tactic(kTactics, 5000)->rows, 256);  // the most there were
  CHECK(find_tactic({}, 1) == nullptr);
}

TEST(rows_are_measured_in_powers_of_two_up_to_the_most) {
  CHECK(measured_rows(1) == std::vector<int32_t>({1}));
  CHECK(measured_rows(8) == std::vector<int32_t>({1, 8}));
  CHECK(measured_rows(100) == std::vector<int32_t>({1, 8, 16, 32, 64, 100}));
}

TEST_MAIN()
