#include "engine/cpu/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace inflight::cpu {
namespace {

// base^(2i / head_size) in float32.
std::vector<float> powers(float base, int32_t head_size) {
  std::vector<float> result(head_size / 2);
  for (int32_t i = 0; i < head_size / 2; ++i) {
    result[i] = static_cast<float>(std::pow(double(base), double(float(2 * i) / float(head_size))));
  }
  return result;
}

std::vector<float> default_frequencies(float base, int32_t head_size) {
  std::vector<float> frequencies = powers(base, head_size);
  for (float& frequency : frequencies) frequency = 1.0f / frequency;
  return frequencies;
}

// Llama 3.1: low frequencies are divided by `factor`, high ones kept, the band between is blended.
std::vector<float> llama3_frequencies(const RopeConfig& rope, int32_t head_size) {
  std::vector<float> frequencies = default_frequencies(float(rope.theta), head_size);
  const float old_length = static_cast<float>(rope.original_max_position_embeddings);
  const float low = static_cast<float>(rope.low_freq_factor);
  const float band = static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  const float factor = static_cast<float>(rope.factor);
  const float low_wavelength = static_cast<float>(rope.original_max_position_embeddings / rope.low_freq_factor);
  const float high_wavelength = static_cast<float>(rope.original_max_position_embeddings / rope.high_freq_factor);
  for (float& frequency : frequencies) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
    if (wavelength > low_wavelength) {
      frequency /= factor;
    } else if (wavelength >= high_wavelength) {
      const float smooth = (old_length / wavelength - low) / band;
      frequency = (1 - smooth) * frequency / factor + smooth * frequency;
    }
  }
  return frequencies;
}

// YaRN (arXiv:2309.00071): interpolates dimensions that turn less than beta_slow times over the original
// length, leaves those that turn more than beta_fast times, and ramps between.
std::vector<float> yarn_frequencies(const RopeConfig& rope, int32_t head_size) {
  const auto correction_dimension = [&](double rotations) {
    return head_size * std::log(double(rope.original_max_position_embeddings) / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = correction_dimension(rope.beta_fast);
  double high = correction_dimension(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, head_size - 1.0);
  if (low == high) high += 0.001;

  std::vector<float> frequencies = powers(float(rope.theta), head_size);
  for (int32_t i = 0; i < head_size / 2; ++i) {
    const float extrapolation = 1.0f / frequencies[i];
    const float interpolation = 1.0f / (static_cast<float>(rope.factor) * frequencies[i]);
    const float ramp = std::clamp((float(i) - float(low)) / float(high - low), 0.0f, 1.0f);
    const float extrapolated_share = 1 - ramp;
    frequencies[i] = interpolation * (1 - extrapolated_share) + extrapolation * extrapolated_share;
  }
  return frequencies;
}

float yarn_attention_scaling(const RopeConfig& rope) {
  if (rope.attention_factor) return static_cast<float>(*rope.attention_factor);
  const auto scale = [&](double mscale) { return rope.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(rope.factor) + 1.0; };
  if (rope.mscale && rope.mscale_all_dim) return static_cast<float>(scale(*rope.mscale) / scale(*rope.mscale_all_dim));
  return static_cast<float>(scale(1.0));
}

}  // namespace

RotaryEmbedding::RotaryEmbedding(const ModelConfig& config)
    : rope_(config.rope), head_size_(config.head_size), max_position_embeddings_(config.max_position_embeddings) {
  switch (rope_.type) {
    case RopeType::kDefault:
    case RopeType::kDynamic: inverse_frequencies_ = default_frequencies(float(rope_.theta), head_size_); break;
    case RopeType::kLinear:
      inverse_frequencies_ = default_frequencies(float(rope_.theta), head_size_);
      for (float& frequency : inverse_frequencies_) frequency /= static_cast<float>(rope_.factor);
      break;
    case RopeType::kLlama3: inverse_frequencies_ = llama3_frequencies(rope_, head_size_); break;
    case RopeType::kYarn:
      inverse_frequencies_ = yarn_frequencies(rope_, head_size_);
      attention_scaling_ = yarn_attention_scaling(rope_);
      break;
  }
}

// NTK-aware scaling whose base grows with the sequence beyond the trained length.
std::vector<float> RotaryEmbedding::dynamic_frequencies(int32_t sequence_length) const {
  const float factor = static_cast<float>(rope_.factor);
  const float stretch = factor * float(sequence_length) / float(max_position_embeddings_) - (factor - 1);
  const float exponent = static_cast<float>(double(head_size_) / (head_size_ - 2));
  const float base = float(rope_.theta) * static_cast<float>(std::pow(double(stretch), double(exponent)));
  return default_frequencies(base, head_size_);
}

void RotaryEmbedding::rotation(int32_t position, int32_t prompt_length, std::span<float> cos,
                               std::span<float> sin) const {
  std::vector<float> dynamic;
  const float* frequencies = inverse_frequencies_.data();
  const int32_t sequence_length = std::max(prompt_length, position + 1);
  if (rope_.type == RopeType::kDynamic && sequence_length > max_position_embeddings_) {
    dynamic = dynamic_frequencies(sequence_length);
    frequencies = dynamic.data();
  }
  for (size_t i = 0; i < cos.size(); ++i) {
    const double angle = double(float(position) * frequencies[i]);
    cos[i] = static_cast<float>(std::cos(angle)) * attention_scaling_;
    sin[i] = static_cast<float>(std::sin(angle)) * attention_scaling_;
  }
}

}  // namespace inflight::cpu
