#include "engine/token_choice.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

namespace inflight {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowestGreedyTemperature = 1e-5f;

// A weight below e^-50 of the highest cannot be told from 0 by a 53-bit draw, whatever the vocabulary.
constexpr double kNegligibleLogWeight = -50.0;

// Loops run over this many independent lanes, which compilers turn into vector instructions.
constexpr size_t kLanes = 16;
constexpr size_t kLogitsPerPart = 1024;

struct Candidate {
  float score;  // a logit, later its weight
  int32_t token;
};

bool more_likely(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.token < b.token);
}

// NaN is passed over: no comparison with it is true.
float maximum(std::span<const float> values) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -kInfinity);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = values[i + j] > lanes[j] ? values[i + j] : lanes[j];
  }
  for (; i < values.size(); ++i) lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

// e^x for x <= 0 within 2e-7 relative; 0 below -87 and for NaN. Branch-free, so that loops vectorize:
// 2^n * 2^f with f in [-0.5, 0.5], 2^f by its Taylor polynomial.
float exp_nonpositive(float x) {
  const float y = x * 1.44269504f;
  const float clamped = y > -125.0f ? y : -125.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = clamped + kRound;
  const float f = clamped - (shifted - kRound);
  float p = 1.54035304e-4f;
  p = p * f + 1.33335581e-3f;
  p = p * f + 9.61812911e-3f;
  p = p * f + 5.55041087e-2f;
  p = p * f + 2.40226507e-1f;
  p = p * f + 6.93147181e-1f;
  p = p * f + 1.0f;
  const uint32_t power = (std::bit_cast<uint32_t>(shifted) + 127u) << 23;
  const float result = p * std::bit_cast<float>(power);
  return y > -125.0f ? result : 0.0f;
}

// The sum of e^((value - highest) * scale): float lanes within a part, double over the parts.
double sum_of_weights(std::span<const float> values, float highest, float scale) {
  double total = 0.0;
  for (size_t begin = 0; begin < values.size(); begin += kLogitsPerPart) {
    const auto part = values.subspan(begin, std::min(kLogitsPerPart, values.size() - begin));
    float lanes[kLanes] = {};
    size_t i = 0;
    for (; i + kLanes <= part.size(); i += kLanes) {
      for (size_t j = 0; j < kLanes; ++j) lanes[j] += exp_nonpositive((part[i + j] - highest) * scale);
    }
    for (; i < part.size(); ++i) lanes[0] += exp_nonpositive((part[i] - highest) * scale);
    for (const float lane : lanes) total += lane;
  }
  return total;
}

// Leaves the `count` most likely candidates, in any order.
void keep_most_likely(std::vector<Candidate>& candidates, size_t count) {
  if (candidates.size() <= count) return;
  std::nth_element(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(count) - 1, candidates.end(),
                   more_likely);
  candidates.resize(count);
}

// The top_k highest logits, tokens ascending. One pass: a logit joins if it beats the worst that is sure
// to be beaten top_k times, which soon leaves almost all out.
void select_top_k(std::span<const float> logits, size_t top_k, std::vector<Candidate>& candidates) {
  const size_t limit = 2 * top_k + 64;
  float threshold = -kInfinity;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > threshold)) continue;
    candidates.push_back({logits[i], static_cast<int32_t>(i)});
    if (candidates.size() == limit) {
      keep_most_likely(candidates, top_k);
      threshold = candidates[top_k - 1].score;
    }
  }
  keep_most_likely(candidates, top_k);
  std::ranges::sort(candidates, {}, &Candidate::token);
}

void select_above(std::span<const float> logits, float threshold, std::vector<Candidate>& candidates) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] >= threshold) candidates.push_back({logits[i], static_cast<int32_t>(i)});
  }
}

double total_weight(std::span<const Candidate> candidates) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += candidate.score;
  return total;
}

// The least likely candidate of the fewest that together weigh `mass` or more: a quickselect by weight,
// in linear time, over a reordered `candidates`.
Candidate last_of_mass(std::span<Candidate> candidates, double mass) {
  while (candidates.size() > 1) {
    const auto middle = static_cast<std::ptrdiff_t>(candidates.size() / 2);
    std::nth_element(candidates.begin(), candidates.begin() + middle, candidates.end(), more_likely);
    const auto upper = candidates.first(static_cast<size_t>(middle));
    const double upper_weight = total_weight(upper);
    if (upper_weight >= mass) {
      candidates = upper;
    } else {
      mass -= upper_weight;
      candidates = candidates.subspan(static_cast<size_t>(middle));
    }
  }
  return candidates.front();
}

// What log_softmax takes off a logit: log(sum of e^logit), in two parts.
struct LogSum {
  float highest;
  double log_sum;  // of e^(logit - highest)
};

LogSum log_sum(std::span<const float> logits) {
  const float highest = maximum(logits);
  return {highest, std::isfinite(highest) ? std::log(sum_of_weights(logits, highest, 1.0f)) : 0.0};
}

float log_prob(float logit, const LogSum& sum) {
  if (!std::isfinite(sum.highest)) return sum.highest > 0.0f && logit == sum.highest ? 0.0f : -kInfinity;
  return static_cast<float>(logit - sum.highest - sum.log_sum);
}

// Scores are weights here; the order of `candidates` stays.
void keep_top_p(std::vector<Candidate>& candidates, double mass, std::vector<Candidate>& scratch) {
  scratch = candidates;
  const Candidate last = last_of_mass(scratch, mass);
  std::erase_if(candidates, [&](const Candidate& candidate) { return more_likely(last, candidate); });
}

}  // namespace

bool is_greedy(const DrawSettings& settings) {
  const auto& [top_k, top_p, min_p, temperature] = settings;
  return top_k == 1 || (top_k == 0 && top_p == 0.0f && min_p == 0.0f) || temperature < kLowestGreedyTemperature;
}

int32_t argmax(std::span<const float> logits) {
  float highest = -kInfinity;
  size_t part_of_highest = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kLogitsPerPart) {
    const float part_highest = maximum(logits.subspan(begin, std::min(kLogitsPerPart, logits.size() - begin)));
    if (part_highest > highest) {
      highest = part_highest;
      part_of_highest = begin;
    }
  }
  if (highest == -kInfinity) return kNoToken;
  return static_cast<int32_t>(
      std::find(logits.begin() + static_cast<std::ptrdiff_t>(part_of_highest), logits.end(), highest) - logits.begin());
}

int32_t draw(std::span<const float> logits, const DrawSettings& settings, double uniform) {
  const auto& [top_k, top_p, min_p, temperature] = settings;
  thread_local std::vector<Candidate> candidates, scratch;  // kept between calls to spare the allocation
  candidates.clear();

  const float highest = maximum(logits);
  if (highest == -kInfinity) return kNoToken;
  if (highest == kInfinity) return argmax(logits);
  const float scale = 1.0f / temperature;
  const bool cuts_mass = top_p > 0.0f && top_p < 1.0f;

  const float lowest_of_min_p =
      min_p > 0.0f ? static_cast<float>(highest + std::log(static_cast<double>(min_p)) * temperature) : -kInfinity;
  std::optional<double> total;  // of all weights that top_p is a share of; none: those of the candidates
  if (top_k > 0) {
    select_top_k(logits, std::min(static_cast<size_t>(top_k), logits.size()), candidates);
    std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.score < lowest_of_min_p; });
  } else if (min_p > 0.0f) {
    select_above(logits, lowest_of_min_p, candidates);
  } else {
    // All weights below (1 - top_p) * total / vocabulary add up to less than what top_p leaves out.
    // 1e-3 allows for rounding in single precision.
    double lowest_log_weight = kNegligibleLogWeight;
    if (cuts_mass) {
      total = sum_of_weights(logits, highest, scale);
      lowest_log_weight =
          std::max(lowest_log_weight, std::log((1.0 - top_p) * *total / static_cast<double>(logits.size())) - 1e-3);
    }
    select_above(logits, static_cast<float>(highest + lowest_log_weight * temperature), candidates);
  }

  for (Candidate& candidate : candidates) candidate.score = exp_nonpositive((candidate.score - highest) * scale);
  if (cuts_mass) keep_top_p(candidates, top_p * (total ? *total : total_weight(candidates)), scratch);

  double left = uniform * total_weight(candidates);
  for (const Candidate& candidate : candidates) {
    left -= candidate.score;
    if (left < 0.0) return candidate.token;
  }
  // Rounding used the whole range up: the last token that has a weight at all.
  const auto last = std::find_if(candidates.rbegin(), candidates.rend(), [](const auto& c) { return c.score > 0.0f; });
  return last->token;
}

void best_tokens(std::span<const float> scores, std::span<int32_t> tokens) {
  thread_local std::vector<Candidate> candidates;
  candidates.clear();
  if (!tokens.empty()) select_top_k(scores, tokens.size(), candidates);
  // Too few scores above -inf: the lowest of the other tokens, too.
  const size_t num_usable = candidates.size();
  for (size_t token = 0, usable = 0; candidates.size() < tokens.size(); ++token) {
    if (usable < num_usable && candidates[usable].token == static_cast<int32_t>(token)) {
      ++usable;
    } else {
      candidates.push_back({-kInfinity, static_cast<int32_t>(token)});
    }
  }
  std::ranges::sort(candidates, more_likely);
  std::ranges::transform(candidates, tokens.begin(), &Candidate::token);
}

void log_softmax_at(std::span<const float> logits, std::span<const int32_t> tokens, std::span<float> log_probs) {
  const LogSum sum = log_sum(logits);
  std::ranges::transform(tokens, log_probs.begin(), [&](int32_t token) { return log_prob(logits[token], sum); });
}

int32_t rank_of(std::span<const float> logits, int32_t token) {
  int32_t likelier = 0;
  for (const float logit : logits) likelier += logit > logits[token] ? 1 : 0;
  return 1 + likelier;
}

void log_softmax(std::span<const float> logits, std::span<float> log_probs) {
  const LogSum sum = log_sum(logits);
  std::ranges::transform(logits, log_probs.begin(), [&](float logit) { return log_prob(logit, sum); });
}

}  // namespace inflight
