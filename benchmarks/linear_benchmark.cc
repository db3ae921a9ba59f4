// Speed of linear layers of given shapes, each over enough copies of the matrix that caches do not hold it.
//
//   linear_benchmark TYPE TOKENS[,TOKENS…] [ROWSxCOLUMNS[xCOUNT] …] [--rounded] [--threads N]
//
// TYPE: float32, bfloat16, float16, int8 or int4 (both in groups of 32, int4 with minimums as in Q4_1).
// --rounded multiplies as the engine does for prompts. COUNT layers of a shape make one pass. Without shapes: the
// layers of SmolLM2-135M, with the last, int8, as its lm_head. Prints time and rates of each shape and of one pass over
// all.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "common/error.h"
#include "engine/cpu/kernels/linear.h"

using namespace inflight;
using namespace inflight::cpu;

namespace {

constexpr int64_t kGroupColumns = 32;
constexpr size_t kColdBytes = size_t{128} << 20;  // more than a last-level cache
constexpr double kSecondsPerMeasurement = 0.4;
constexpr double kSecondsPerRun = 0.001;

const std::map<std::string, WeightType> kTypes = {{"float32", WeightType::kFloat32},
                                                  {"bfloat16", WeightType::kBFloat16},
                                                  {"float16", WeightType::kFloat16},
                                                  {"int8", WeightType::kInt8},
                                                  {"int4", WeightType::kInt4}};

struct Shape {
  WeightType type;
  int64_t rows;
  int64_t columns;
  int64_t count;
};

struct Options {
  WeightType type;
  std::vector<int64_t> tokens;
  std::vector<Shape> shapes;
  int threads = 0;
  Precision precision = Precision::kExact;
};

Options parse(int argc, char** argv) {
  if (argc < 3 || kTypes.count(argv[1]) == 0) {
    throw_error(ErrorCode::kInvalidArgument,
                "usage: linear_benchmark float32|bfloat16|float16|int8|int4 TOKENS[,TOKENS…] "
                "[ROWSxCOLUMNS[xCOUNT] …] [--rounded] [--threads N]");
  }
  Options options{kTypes.at(argv[1]), {}, {}};
  std::istringstream tokens(argv[2]);
  for (std::string count; std::getline(tokens, count, ',');) options.tokens.push_back(std::stoll(count));
  for (int i = 3; i < argc; ++i) {
    Shape shape{options.type, 0, 0, 1};
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      options.threads = std::atoi(argv[++i]);
    } else if (std::strcmp(argv[i], "--rounded") == 0) {
      options.precision = Precision::kRounded;
    } else if (std::sscanf(argv[i], "%ldx%ldx%ld", &shape.rows, &shape.columns, &shape.count) >= 2) {
      options.shapes.push_back(shape);
    } else {
      throw_error(ErrorCode::kInvalidArgument, "\"", argv[i], "\" is not ROWSxCOLUMNS[xCOUNT]");
    }
  }
  if (options.shapes.empty()) {
    const WeightType head = options.type == WeightType::kInt4 ? WeightType::kInt8 : options.type;
    options.shapes = {{options.type, 960, 576, 30},
                      {options.type, 576, 576, 30},
                      {options.type, 3072, 576, 30},
                      {options.type, 576, 1536, 30},
                      {head, 49152, 576, 1}};
  }
  return options;
}

std::vector<std::byte> random_blob(const Shape& shape) {
  const bool integer = shape.type == WeightType::kInt8 || shape.type == WeightType::kInt4;
  const int64_t groups = integer && shape.columns % kGroupColumns == 0 ? shape.columns / kGroupColumns : integer;
  std::mt19937 random(1);
  std::vector<uint8_t> data(shape.rows * shape.columns * 4);
  for (auto& byte : data) byte = random() % 60;  // as floats: small numbers of any type
  const std::vector<float> scale(shape.rows * groups, 0.125f);
  return pack_matrix({.type = shape.type,
                      .rows = shape.rows,
                      .columns = shape.columns,
                      .groups = groups,
                      .data = data.data(),
                      .scale = integer ? scale.data() : nullptr,
                      .minimum = shape.type == WeightType::kInt4 ? scale.data() : nullptr});
}

// Copies of one matrix, each 64-byte aligned as engine files have them.
class Copies {
 public:
  explicit Copies(const Shape& shape) {
    const auto blob = random_blob(shape);
    const size_t count = kColdBytes / blob.size() + 1;
    memory_.resize(count * blob.size() + 64);
    std::byte* first = memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64;
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(first + i * blob.size(), blob.data(), blob.size());
      matrices_.emplace_back(std::span(first + i * blob.size(), blob.size()), "benchmark");
    }
    bytes_ = blob.size();
  }
  const PackedMatrix& next() { return matrices_[position_++ % matrices_.size()]; }
  size_t bytes() const { return bytes_; }

 private:
  std::vector<std::byte> memory_;
  std::vector<PackedMatrix> matrices_;
  size_t position_ = 0;
  size_t bytes_ = 0;
};

// The fastest of many runs of a millisecond, in seconds a call: other processes only ever add time.
double seconds_per_call(Copies& copies, int64_t tokens, ThreadPool& pool, Isa isa, Precision precision) {
  const int64_t rows = copies.next().rows(), columns = copies.next().columns();
  std::vector<float> x(tokens * columns, 0.5f), y(tokens * rows);
  LinearInput input(tokens, columns);
  using Clock = std::chrono::steady_clock;
  const auto run = [&](int64_t calls) {
    const auto start = Clock::now();
    for (int64_t i = 0; i < calls; ++i) {
      input.set(x.data(), tokens, columns, columns);
      linear(copies.next(), input, {.rows = y.data(), .row_stride = rows}, pool, isa, precision);
    }
    return std::chrono::duration<double>(Clock::now() - start).count() / static_cast<double>(calls);
  };
  const auto calls = static_cast<int64_t>(kSecondsPerRun / run(1)) + 1;
  double best = run(calls);
  for (double spent = 0; spent < kSecondsPerMeasurement;) {
    const double seconds = run(calls);
    spent += seconds * static_cast<double>(calls);
    best = std::min(best, seconds);
  }
  return best;
}

void report(const char* name, int64_t tokens, double seconds, double operations, double bytes) {
  std::printf("%-16s %6ld %12.1f %10.1f %8.1f\n", name, static_cast<long>(tokens), seconds * 1e6,
              operations / seconds * 1e-9, bytes / seconds * 1e-9);
}

void run(const Options& options) {
  ThreadPool pool(options.threads);
  const Isa isa = select_isa();
  std::printf("%s, %d threads\n%-16s %6s %12s %10s %8s\n", isa_name(isa), pool.size(), "shape", "tokens", "us",
              "GFLOP/s", "GB/s");
  std::vector<Copies> copies(options.shapes.begin(), options.shapes.end());
  for (const int64_t tokens : options.tokens) {
    double pass_seconds = 0, pass_operations = 0, pass_bytes = 0;
    for (size_t i = 0; i < copies.size(); ++i) {
      const auto& [type, rows, columns, count] = options.shapes[i];
      const double seconds = seconds_per_call(copies[i], tokens, pool, isa, options.precision);
      const double operations = 2.0 * static_cast<double>(rows * columns * tokens);
      const auto bytes = static_cast<double>(copies[i].bytes());
      report(concat(rows, "x", columns).c_str(), tokens, seconds, operations, bytes);
      pass_seconds += seconds * static_cast<double>(count);
      pass_operations += operations * static_cast<double>(count);
      pass_bytes += bytes * static_cast<double>(count);
    }
    report("one pass", tokens, pass_seconds, pass_operations, pass_bytes);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
  } catch (const Error& e) {
    std::cerr << e.what() << std::endl;
    return 1;
  }
  return 0;
}
