// What others wrote, damaged at random: it is taken or refused with an inflight::Error, and nothing is read that is not
// there (which the sanitizers see). INFLIGHT_FUZZ_EXECUTIONS and INFLIGHT_FUZZ_SEED make longer and other runs.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

#include "check.h"
#include "common/safetensors.h"
#include "engine/cpu/packed_matrix.h"
#include "fake_triton.h"
#include "random_matrix.h"
#include "tiny_model.h"
#include "triton/request/request_reader.h"

using namespace inflight;
using namespace inflight::test;

namespace {

using Bytes = std::vector<std::byte>;

int64_t number(const char* variable, int64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoll(text);
}

class Fuzzer {
 public:
  // `body` is called with random numbers of its own; what it throws but for Error ends the test.
  template <class Body>
  void run(const char* name, Body&& body) {
    const int64_t executions = number("INFLIGHT_FUZZ_EXECUTIONS", 2000), seed = number("INFLIGHT_FUZZ_SEED", 0);
    int64_t refused = 0;
    for (int64_t i = 0; i < executions; ++i) {
      std::mt19937 random(static_cast<uint32_t>(seed + i));
      try {
        body(random);
      } catch (const Error&) {
        ++refused;
      }
    }
    std::cout << name << ": " << executions << " executions, " << refused << " refused" << std::endl;
    CHECK(refused > 0 && refused < executions);
  }
};

template <class T>
const T& one_of(std::mt19937& random, const std::vector<T>& values) {
  return values[random() % values.size()];
}

// One to four changes: bits, numbers on the edge, parts that are missing, doubled or moved.
void damage(Bytes& bytes, std::mt19937& random) {
  static const std::vector<uint64_t> kNumbers = {0,
                                                 1,
                                                 0x7f,
                                                 0x80,
                                                 0xff,
                                                 0x7fffffff,
                                                 0x80000000,
                                                 0xffffffff,
                                                 0x100000000,
                                                 uint64_t{1} << 62,
                                                 ~uint64_t{0},
                                                 '"',
                                                 '}',
                                                 uint64_t{'9'} << 8 | '-'};
  for (uint32_t changes = random() % 4 + 1; changes > 0 && !bytes.empty(); --changes) {
    const size_t place = random() % bytes.size();
    const size_t length = std::min<size_t>(bytes.size() - place, 1 + random() % 16);
    switch (random() % 6) {
      case 0: bytes[place] ^= std::byte{1} << (random() % 8); break;
      case 1: bytes.resize(place); break;
      case 2: bytes.erase(bytes.begin() + place, bytes.begin() + place + length); break;
      case 3: {
        const Bytes part(bytes.begin() + place, bytes.begin() + place + length);
        bytes.insert(bytes.begin() + random() % bytes.size(), part.begin(), part.end());
        break;
      }
      default: {
        const uint64_t value = one_of(random, kNumbers);
        std::memcpy(&bytes[place], &value, std::min({length, sizeof value, size_t{1} << (random() % 4)}));
      }
    }
  }
}

Bytes bytes_of(const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

Bytes safetensors_file() {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]},"c":{"dtype":"U8","shape":[],"data_offsets":[11,12]}})";
  const uint64_t length = header.size();
  return bytes_of(std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + std::string(12, 'x'));
}

FakeRequest whole_request() {
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6};
  const Bytes guides = bytes_of({"\4\0\0\0json\4\0\0\0json", 16});
  const FakeInput guide{"guided_decoding_guide_type", TRITONSERVER_TYPE_BYTES, {2, 1}, guides};
  return {"id",
          {ints("input_ids", {2, 3}, ids), ints("input_lengths", {2, 1}, {3, 2}),
           ints("request_output_len", {2, 1}, {3, 4}), flag("streaming", true),
           ints("stop_words_list", {2, 2, 2}, {4, 5, 1, 2, 4, 5, 1, -1}),
           ints("bad_words_list", {2, 2, 1}, {4, 1, 5, 1}), ints("beam_width", {2, 1}, {1, 1}),
           ints("draft_input_ids", {2, 2}, {1, 2, 3, 4}), ints("num_return_sequences", {2, 1}, {1, 2}),
           ints("retention_token_range_starts", {2, 1}, {0, 0}), ints("retention_token_range_ends", {2, 1}, {2, 2}),
           ints("retention_token_range_priorities", {2, 1}, {50, 60}), ints("runtime_top_k", {2, 1}, {4, 5}), guide},
          {"output_ids", "sequence_length"},
          nullptr};
}

FakeRequest damaged_request(std::mt19937& random) {
  static const std::vector<int64_t> kDimensions = {-1, 0, 1, 2, 3, 4, 1 << 20, int64_t{1} << 31, int64_t{1} << 62};
  FakeRequest request = whole_request();
  // Without most of the optional inputs, so that not everything is refused for the first of many reasons.
  for (size_t i = request.inputs.size(); i-- > 3;) {
    if (random() % 3 != 0) request.inputs.erase(request.inputs.begin() + i);
  }
  FakeInput& input = request.inputs[random() % request.inputs.size()];
  switch (random() % 8) {
    case 0: input.datatype = static_cast<TRITONSERVER_DataType>(random() % 15); break;
    case 1: input.shape.resize(random() % 4, one_of(random, kDimensions)); break;
    case 2:
      if (!input.shape.empty()) input.shape[random() % input.shape.size()] = one_of(random, kDimensions);
      break;
    case 3: input.name = request.inputs[random() % request.inputs.size()].name; break;
    case 4: request.inputs.erase(request.inputs.begin() + random() % request.inputs.size()); break;
    case 5: input.num_buffers = random() % 4; break;
    default: damage(input.data, random);
  }
  return request;
}

}  // namespace

TEST(damaged_safetensors_files) {
  const std::filesystem::path path = temporary_directory() / "damaged.safetensors";
  Fuzzer().run("safetensors", [&](std::mt19937& random) {
    Bytes bytes = safetensors_file();
    if (random() % 50 != 0) damage(bytes, random);
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const SafetensorsFile file(path);
    for (const auto& [name, tensor] : file.tensors()) {
      CHECK(std::count(tensor.data.begin(), tensor.data.end(), std::byte{0}) <= 12);
    }
  });
}

TEST(damaged_packed_matrices) {
  using cpu::WeightType;
  std::mt19937 of_matrices(1);
  std::vector<Bytes> blobs;
  for (const MatrixShape& shape :
       {MatrixShape{WeightType::kFloat32, 5, 7}, MatrixShape{WeightType::kBFloat16, 33, 10},
        MatrixShape{WeightType::kInt8, 20, 96, 3}, MatrixShape{WeightType::kInt4, 20, 96, 3, true, true}}) {
    blobs.push_back(cpu::pack_matrix(random_matrix(shape, of_matrices).source()));
  }
  Fuzzer().run("packed matrices", [&](std::mt19937& random) {
    Bytes blob = one_of(random, blobs);
    Bytes header(blob.begin(), blob.begin() + 64);
    if (random() % 50 != 0) damage(random() % 4 == 0 ? blob : header, random);
    std::copy_n(header.begin(), std::min(header.size(), blob.size()), blob.begin());
    const Bytes exact(blob.begin(), blob.end());  // without spare capacity, where a sanitizer would not look
    const cpu::PackedMatrix matrix(exact, "damaged");
    std::vector<float> row(matrix.columns());
    for (int64_t r = 0; r < matrix.rows(); ++r) matrix.row(r, row.data());
  });
}

TEST(damaged_request_tensors) {
  triton::BackendConfig config;
  config.max_batch_size = 4;
  config.decoupled = true;
  EngineInfo engine{};
  engine.vocab_size = 100;
  engine.max_seq_len = 64;
  engine.max_batch_size = 4;
  Fuzzer().run("request tensors", [&](std::mt19937& random) {
    with_triton_request(damaged_request(random), [&](TRITONBACKEND_Request* request) {
      for (const Request& sequence : triton::read_request(request, config, engine).sequences) {
        CHECK(sequence.input_ids.size() <= 8);
      }
    });
  });
}

TEST(damaged_requests_have_their_end) {
  FakeModel model("fuzzed", write_engine(random_model(tiny_config(), 1)), true);
  Fuzzer().run("requests", [&](std::mt19937& random) {
    FakeRequest request = damaged_request(random);
    request.client = std::make_shared<FakeClient>();
    model.execute(request);
    const std::string error = request.client->wait_for_end().error;
    if (!error.empty()) throw_error(ErrorCode::kInvalidArgument, error);
  });
}

TEST_MAIN()
