#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "engine/model_config.h"

namespace inflight::test {

// A model small enough to run by hand, with random float32 weights.
struct TinyModel {
  EngineConfig config;
  std::map<std::string, std::vector<float>> weights;  // under the engine's tensor names, [out, in] row by row
};

// Two layers of odd sizes: grouped queries, a head size that is not hidden / heads; no biases.
EngineConfig tiny_config();

TinyModel random_model(const EngineConfig& config, uint32_t seed);

// Writes config.json and rank0.safetensors as `inflight build` does, into a fresh folder.
std::filesystem::path write_engine(const TinyModel& model);

// The folder that write_engine and the other tests' files go to; removed when the program ends.
const std::filesystem::path& temporary_directory();

struct RawTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<char> data;
};
void write_safetensors(const std::filesystem::path& file, const std::map<std::string, RawTensor>& tensors);

// Logits after each token, [tokens][vocab]: the model's definition in double precision, one sequence,
// no cache. The first `prompt_length` tokens are its prompt; windows leave the first `sink_tokens` in sight.
std::vector<std::vector<double>> reference_logits(const TinyModel& model, const std::vector<int32_t>& tokens,
                                                  int32_t prompt_length, int32_t sink_tokens = 0);

}  // namespace inflight::test
