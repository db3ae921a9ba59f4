#include <algorithm>
#include <cmath>
#include <limits>

#include "tiny_model.h"

// The model's definition, as its papers and Hugging Face transformers have it, with nothing optimized.
namespace inflight::test {
namespace {

using Row = std::vector<double>;

Row rms_norm(const Row& x, const std::vector<float>& weight, double epsilon) {
  double squares = 0;
  for (const double value : x) squares += value * value;
  Row y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] / std::sqrt(squares / x.size() + epsilon) * weight[i];
  return y;
}

Row linear(const TinyModel& model, const std::string& name, const Row& x) {
  const std::vector<float>& weight = model.weights.at(name + ".weight");
  const auto bias = model.weights.find(name + ".bias");
  Row y(weight.size() / x.size());
  for (size_t row = 0; row < y.size(); ++row) {
    y[row] = bias == model.weights.end() ? 0 : bias->second[row];
    for (size_t i = 0; i < x.size(); ++i) y[row] += double(weight[row * x.size() + i]) * x[i];
  }
  return y;
}

// Inverse frequencies, [head_size / 2], and the factor on cos and sin.
std::pair<Row, double> frequencies(const ModelConfig& c, int32_t sequence_length) {
  const RopeConfig& rope = c.rope;
  double base = rope.theta;
  if (rope.type == RopeType::kDynamic && sequence_length > c.max_position_embeddings) {
    base *= std::pow(rope.factor * sequence_length / c.max_position_embeddings - (rope.factor - 1),
                     double(c.head_size) / (c.head_size - 2));
  }
  Row result;
  for (int32_t i = 0; i < c.head_size; i += 2) result.push_back(std::pow(base, -double(i) / c.head_size));
  const double original = double(rope.original_max_position_embeddings);
  double scaling = 1;

  if (rope.type == RopeType::kLinear) {
    for (double& frequency : result) frequency /= rope.factor;
  }

  if (rope.type == RopeType::kLlama3) {
    for (double& frequency : result) {
      const double turns = original * frequency / (2 * M_PI);
      const double smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      const double kept = std::clamp(smooth, 0.0, 1.0);
      frequency = (1 - kept) * frequency / rope.factor + kept * frequency;
    }
  }

  if (rope.type == RopeType::kYarn) {
    const auto dimension = [&](double turns) {
      return c.head_size * std::log(original / (turns * 2 * M_PI)) / (2 * std::log(rope.theta));
    };
    const double fast = dimension(rope.beta_fast), slow = dimension(rope.beta_slow);
    const double low = std::max(rope.truncate ? std::floor(fast) : fast, 0.0);
    const double high = std::min(rope.truncate ? std::ceil(slow) : slow, c.head_size - 1.0);
    for (size_t i = 0; i < result.size(); ++i) {
      const double ramp = std::clamp((double(i) - low) / (high - low), 0.0, 1.0);
      result[i] = result[i] / rope.factor * ramp + result[i] * (1 - ramp);
    }
    const auto mscale = [&](double weight) { return 0.1 * weight * std::log(rope.factor) + 1; };
    scaling = rope.attention_factor                ? *rope.attention_factor
              : rope.mscale && rope.mscale_all_dim ? mscale(*rope.mscale) / mscale(*rope.mscale_all_dim)
                                                   : mscale(1);
  }
  return {result, scaling};
}

Row rotated(const Row& head, const ModelConfig& c, int32_t position, int32_t prompt_length) {
  const auto [inverse_frequencies, scaling] = frequencies(c, std::max(prompt_length, position + 1));
  const size_t half = head.size() / 2;
  Row y(head.size());
  for (size_t i = 0; i < half; ++i) {
    const double cos = std::cos(position * inverse_frequencies[i]) * scaling;
    const double sin = std::sin(position * inverse_frequencies[i]) * scaling;
    y[i] = head[i] * cos - head[half + i] * sin;
    y[half + i] = head[half + i] * cos + head[i] * sin;
  }
  return y;
}

Row attend(const Row& query, const std::vector<Row>& keys, const std::vector<Row>& values, int32_t position,
           int32_t window, int32_t sink_tokens) {
  const int32_t first = window > 0 ? std::max(0, position - window + 1) : 0;
  const auto is_visible = [&](int32_t i) { return i < sink_tokens || i >= first; };
  Row weights;
  double largest = -std::numeric_limits<double>::infinity();
  for (int32_t i = 0; i <= position; ++i) {
    double score = is_visible(i) ? 0 : -std::numeric_limits<double>::infinity();
    for (size_t j = 0; j < query.size(); ++j) score += query[j] * keys[i][j];
    weights.push_back(score / std::sqrt(double(query.size())));
    largest = std::max(largest, weights.back());
  }
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  Row y(query.size());
  for (int32_t i = 0; i <= position; ++i) {
    for (size_t j = 0; j < y.size(); ++j) y[j] += weights[i] / sum * values[i][j];
  }
  return y;
}

}  // namespace

std::vector<Row> reference_logits(const TinyModel& model, const std::vector<int32_t>& tokens, int32_t prompt_length,
                                  int32_t sink_tokens) {
  const ModelConfig& c = model.config.model;
  const double epsilon = c.norm_epsilon;
  const auto add = [](Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  };

  std::vector<Row> hidden;
  for (const int32_t token : tokens) {
    const auto row = model.weights.at("transformer.vocab_embedding.weight").begin() + int64_t{token} * c.hidden_size;
    hidden.emplace_back(row, row + c.hidden_size);
  }
  for (int32_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = "transformer.layers." + std::to_string(i) + ".";
    const auto weight = [&](const std::string& name) -> const std::vector<float>& {
      return model.weights.at(layer + name);
    };
    std::vector<std::vector<Row>> keys(c.num_key_value_heads), values(c.num_key_value_heads);
    for (int32_t position = 0; position < int32_t(hidden.size()); ++position) {
      Row& x = hidden[position];
      const Row qkv = linear(model, layer + "attention.qkv", rms_norm(x, weight("input_layernorm.weight"), epsilon));
      const auto head = [&](int32_t index) {
        return Row(qkv.begin() + index * c.head_size, qkv.begin() + (index + 1) * c.head_size);
      };
      const auto query_or_key = [&](int32_t index, const char* norm) {
        const Row raw = head(index);
        return rotated(c.qk_norm ? rms_norm(raw, weight(norm), epsilon) : raw, c, position, prompt_length);
      };
      for (int32_t kv = 0; kv < c.num_key_value_heads; ++kv) {
        keys[kv].push_back(query_or_key(c.num_attention_heads + kv, "attention.k_layernorm.weight"));
        values[kv].push_back(head(c.num_attention_heads + c.num_key_value_heads + kv));
      }
      Row attended;
      for (int32_t q = 0; q < c.num_attention_heads; ++q) {
        const int32_t kv = q / (c.num_attention_heads / c.num_key_value_heads);
        const Row y = attend(query_or_key(q, "attention.q_layernorm.weight"), keys[kv], values[kv], position,
                             c.layer_windows[i], sink_tokens);
        attended.insert(attended.end(), y.begin(), y.end());
      }
      add(x, linear(model, layer + "attention.dense", attended));

      const Row gate_up = linear(model, layer + "mlp.gate_up", rms_norm(x, weight("post_layernorm.weight"), epsilon));
      Row activated(c.intermediate_size);
      for (int32_t j = 0; j < c.intermediate_size; ++j) {
        activated[j] = gate_up[j] / (1 + std::exp(-gate_up[j])) * gate_up[c.intermediate_size + j];
      }
      add(x, linear(model, layer + "mlp.down", activated));
    }
  }
  std::vector<Row> logits;
  for (const Row& x : hidden) {
    logits.push_back(linear(model, c.tie_word_embeddings ? "transformer.vocab_embedding" : "lm_head",
                            rms_norm(x, model.weights.at("transformer.ln_f.weight"), epsilon)));
  }
  return logits;
}

}  // namespace inflight::test
