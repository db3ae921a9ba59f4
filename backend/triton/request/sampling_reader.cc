#include "triton/request/sampling_reader.h"

#include <algorithm>
#include <utility>

#include "common/error.h"

namespace inflight::triton {
namespace {

// One of the model's end ids stands for all of them.
std::vector<int32_t> read_end_ids(std::optional<int32_t> end_id, const EngineInfo& engine) {
  const auto& own = engine.end_ids;
  if (!end_id || std::find(own.begin(), own.end(), *end_id) != own.end()) return own;
  return {*end_id};
}

// A tensor that newer repositories of TensorRT-LLM have under another name. Throws where both are there and differ.
template <class T>
void read_renamed(T& member, const SequenceTensors& tensors, const char* name, const char* newer_name) {
  const auto value = tensors.scalar<T>(name), newer = tensors.scalar<T>(newer_name);
  if (value && newer && *value != *newer) {
    throw_error(ErrorCode::kInvalidArgument, name, " is ", *value, ", and ", newer_name, ", its other name, is ",
                *newer, "; send one of them");
  }
  if (const auto given = value ? value : newer) member = *given;
}

// An empty bias, or one of zeros, is none: the preprocessing model always sends one.
std::shared_ptr<const std::vector<float>> read_embedding_bias(const SequenceTensors& tensors) {
  auto bias = tensors.list<float>("embedding_bias");
  if (!bias || std::all_of(bias->begin(), bias->end(), [](float value) { return value == 0.0f; })) return nullptr;
  return std::make_shared<const std::vector<float>>(std::move(*bias));
}

}  // namespace

SamplingConfig read_sampling(const SequenceTensors& tensors, const EngineInfo& engine) {
  SamplingConfig sampling;
  tensors.read(sampling.top_k, "runtime_top_k");
  tensors.read(sampling.top_p, "runtime_top_p");
  tensors.read(sampling.min_p, "min_p");
  tensors.read(sampling.top_p_min, "runtime_top_p_min");
  tensors.read(sampling.top_p_decay, "runtime_top_p_decay");
  tensors.read(sampling.top_p_reset_id, "runtime_top_p_reset_ids");
  tensors.read(sampling.temperature, "temperature");
  read_renamed(sampling.random_seed, tensors, "random_seed", "seed");
  tensors.read(sampling.repetition_penalty, "repetition_penalty");
  tensors.read(sampling.presence_penalty, "presence_penalty");
  tensors.read(sampling.frequency_penalty, "frequency_penalty");
  read_renamed(sampling.min_length, tensors, "min_length", "min_tokens");
  tensors.read(sampling.return_log_probs, "return_log_probs");
  sampling.end_ids = read_end_ids(tensors.scalar<int32_t>("end_id"), engine);
  sampling.embedding_bias = read_embedding_bias(tensors);
  return sampling;
}

BeamSearchConfig read_beam_search(const SequenceTensors& tensors) {
  BeamSearchConfig beams;
  tensors.read(beams.beam_width, "beam_width");
  tensors.read(beams.length_penalty, "len_penalty");
  tensors.read(beams.diversity_rate, "beam_search_diversity_rate");
  if (const auto early = tensors.scalar<bool>("early_stopping")) {
    beams.early_stopping = *early ? EarlyStopping::kYes : EarlyStopping::kNo;
  }
  return beams;
}

}  // namespace inflight::triton
