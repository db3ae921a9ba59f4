#include "common/safetensors.h"

#include <fstream>
#include <random>

#include "check.h"
#include "tiny_model.h"

using namespace inflight;
using namespace inflight::test;

namespace {

constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;

std::filesystem::path write(const std::string& bytes) {
  const std::filesystem::path file = temporary_directory() / "model.safetensors";
  std::ofstream(file, std::ios::binary) << bytes;
  return file;
}

std::string with_header(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + std::string(data_bytes, 'x');
}

std::string two_tensors() {
  return with_header(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]},)"
                     R"("a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})",
                     11);
}

}  // namespace

TEST(tensors_are_views_of_the_file) {
  const SafetensorsFile file(write(two_tensors()));
  CHECK_EQ(file.tensors().size(), 2u);
  CHECK(file.contains("a") && !file.contains("__metadata__"));
  CHECK_EQ(file.tensor("a").dtype, "F32");
  CHECK((file.tensor("a").shape == std::vector<int64_t>{1, 2}));
  CHECK_EQ(file.tensor("b").data.size(), 3u);
  CHECK(file.tensor("b").data.data() == file.tensor("a").data.data() + 8);
  CHECK_ERROR(file.tensor("c"), ErrorCode::kNotFound, "model.safetensors: there is no tensor 'c'");
}

TEST(an_empty_file_of_tensors_is_valid) { CHECK(SafetensorsFile(write(with_header("{}", 0))).tensors().empty()); }

TEST(every_truncation_is_an_error) {
  const std::string whole = two_tensors();
  for (size_t length = 0; length < whole.size(); ++length) {
    CHECK_ERROR(SafetensorsFile(write(whole.substr(0, length))), kInvalid, "model.safetensors");
  }
  CHECK_ERROR(SafetensorsFile(write(whole + "x")), kInvalid, "its tensors end at byte 11");
}

TEST(foreign_files_are_errors) {
  CHECK_ERROR(SafetensorsFile("/nowhere/x.safetensors"), ErrorCode::kNotFound, "/nowhere/x.safetensors");
  CHECK_ERROR(SafetensorsFile{temporary_directory()}, kInvalid, "not a regular file");
  CHECK_ERROR(SafetensorsFile(write("GGUF____________________")), kInvalid, "its header would have");
  CHECK_ERROR(SafetensorsFile(write(with_header("{\"a\":", 0))), kInvalid, "not a JSON object");
  CHECK_ERROR(SafetensorsFile(write(with_header("[1]", 0))), kInvalid, "not a JSON object");
}

TEST(headers_that_contradict_themselves_are_errors) {
  const auto rejects = [](const std::string& tensors, size_t data_bytes, const std::string& message) {
    CHECK_ERROR(SafetensorsFile(write(with_header("{" + tensors + "}", data_bytes))), kInvalid, message);
  };
  rejects(R"("a":{"dtype":"F32","shape":[1]})", 4, "'a' lacks a proper");
  rejects(R"("a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4, "'a' lacks a proper");
  rejects(R"("a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})", 4, "'a' lacks a proper");
  rejects(R"("a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]})", 4, "unknown dtype 'F99'");
  rejects(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4, "need 8");
  rejects(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4, "before it begins");
  rejects(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 4, "truncated: tensor 'a'");
  rejects(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8, "gap at byte 0");
  rejects(R"("a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"I8","shape":[2],"data_offsets":[1,3]})",
          3, "overlap");
  rejects(R"("a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]})",
          2, "'a' is there twice");
  rejects(R"("a":{"dtype":"F32","shape":[9223372036854775807,2],"data_offsets":[0,4]})", 4, "overflows");
}

TEST(random_damage_never_crashes) {
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = two_tensors();
    for (int change = 0; change < 3; ++change) bytes[random() % bytes.size()] = static_cast<char>(random());
    try {
      const SafetensorsFile file(write(bytes));
      for (const auto& [name, tensor] : file.tensors()) CHECK(tensor.data.size() <= 11);
    } catch (const Error&) {
    }
  }
}

TEST_MAIN()
