#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/token_choice.h"
#include "engine/token_words.h"

namespace inflight {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

bool has_penalties(const SamplingConfig& config) {
  return config.repetition_penalty != 1.0f || config.presence_penalty != 0.0f || config.frequency_penalty != 0.0f;
}

size_t longest_look_back(const std::vector<std::vector<int32_t>>& bad_words) {
  size_t longest = 1;
  for (const auto& word : bad_words) longest = std::max(longest, word.size());
  return longest - 1;
}

// SplitMix64's output function (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// The `count`-th number in [0, 1) of the stream that `seed` names.
double uniform(uint64_t seed, uint64_t count) { return static_cast<double>(mix(mix(seed) ^ count) >> 11) * 0x1p-53; }

}  // namespace

Sampler::Sampler(int32_t max_batch_size, int32_t vocab_size) : vocab_size_(vocab_size), slots_(max_batch_size) {}

void Sampler::configure(int32_t slot_index, const SamplingConfig& config, std::span<const int32_t> prompt) {
  Slot& slot = slots_[slot_index];
  const auto outside = [this](int32_t token) { return token < 0 || token >= vocab_size_; };
  slot.config = config;
  std::erase_if(slot.config.end_ids, outside);
  std::erase_if(slot.config.bad_words,
                [&](const auto& word) { return word.empty() || std::ranges::any_of(word, outside); });
  slot.generated = 0;

  slot.seen.clear();
  if (has_penalties(config)) {
    std::vector<int32_t> tokens(prompt.begin(), prompt.end());
    std::erase_if(tokens, outside);
    std::ranges::sort(tokens);
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (const int32_t token : tokens) slot.seen.push_back({token, 0});
  }
  const size_t tail = std::min(prompt.size(), longest_look_back(slot.config.bad_words));
  slot.recent.assign(prompt.end() - static_cast<std::ptrdiff_t>(tail), prompt.end());
}

SampledToken Sampler::sample(int32_t slot_index, std::span<float> logits) {
  Slot& slot = slots_[slot_index];
  const SamplingConfig& config = slot.config;

  penalize(slot, logits);
  mask(slot, logits);
  int32_t token = is_greedy(config.top_k, config.top_p, config.temperature)
                      ? argmax(logits)
                      : draw(logits, config.top_k, config.top_p, config.temperature,
                             uniform(config.random_seed, static_cast<uint64_t>(slot.generated)));
  if (token == kNoToken) token = config.end_ids.empty() ? 0 : config.end_ids.front();

  for (; !slot.replaced.empty(); slot.replaced.pop_back()) {
    logits[slot.replaced.back().first] = slot.replaced.back().second;
  }
  const float log_prob = config.return_log_probs ? log_softmax_at(logits, token) : 0.0f;
  remember(slot, token);
  return {slot_index, token, log_prob};
}

void Sampler::penalize(Slot& slot, std::span<float> logits) const {
  const SamplingConfig& config = slot.config;
  for (const auto [token, generated_count] : slot.seen) {
    float& logit = logits[token];
    slot.replaced.emplace_back(token, logit);
    logit = logit > 0.0f ? logit / config.repetition_penalty : logit * config.repetition_penalty;
    if (generated_count > 0) {
      logit -= config.frequency_penalty * static_cast<float>(generated_count) + config.presence_penalty;
    }
  }
}

void Sampler::mask(Slot& slot, std::span<float> logits) const {
  const auto forbid = [&](int32_t token) {
    slot.replaced.emplace_back(token, logits[token]);
    logits[token] = kMasked;
  };
  for (const auto& word : slot.config.bad_words) {
    if (ends_with(slot.recent, std::span(word).first(word.size() - 1))) forbid(word.back());
  }
  if (slot.generated < slot.config.min_length) std::ranges::for_each(slot.config.end_ids, forbid);
}

void Sampler::remember(Slot& slot, int32_t token) const {
  ++slot.generated;
  if (has_penalties(slot.config)) {
    auto place = std::ranges::lower_bound(slot.seen, token, {}, &SeenToken::token);
    if (place == slot.seen.end() || place->token != token) place = slot.seen.insert(place, {token, 0});
    ++place->generated_count;
  }
  if (const size_t look_back = longest_look_back(slot.config.bad_words); look_back > 0) {
    if (slot.recent.size() == look_back) slot.recent.erase(slot.recent.begin());
    slot.recent.push_back(token);
  }
}

}  // namespace inflight
