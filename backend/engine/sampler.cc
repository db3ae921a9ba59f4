#include "engine/sampler.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "common/error.h"
#include "engine/token_choice.h"

namespace inflight {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

bool has_penalties(const SamplingConfig& config) {
  return config.repetition_penalty != 1.0f || config.presence_penalty != 0.0f || config.frequency_penalty != 0.0f;
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

void penalize(const SamplingConfig& config, int32_t generated_count, float& score) {
  score = score > 0.0f ? score / config.repetition_penalty : score * config.repetition_penalty;
  if (generated_count > 0) {
    score -= config.frequency_penalty * static_cast<float>(generated_count) + config.presence_penalty;
  }
}

constexpr size_t kMaskBits = 32;

void mask_tokens(std::span<const uint32_t> mask, std::span<float> scores) {
  if (mask.size() * kMaskBits < scores.size()) {
    throw_error(ErrorCode::kInternal, "a token mask of ", mask.size(), " words for a vocabulary of ", scores.size());
  }
  for (size_t first = 0; first < scores.size(); first += kMaskBits) {
    const uint32_t word = mask[first / kMaskBits];
    if (word == ~uint32_t{0}) continue;
    const auto part = scores.subspan(first, std::min(kMaskBits, scores.size() - first));
    if (word == 0) {
      std::ranges::fill(part, kMasked);
    } else {
      for (size_t bit = 0; bit < part.size(); ++bit) part[bit] = word >> bit & 1 ? part[bit] : kMasked;
    }
  }
}

// Those of the sampled token and, as far as `top` has room, of the most likely ones.
void add_log_probs(const SamplingConfig& config, std::span<const float> logits, SampledToken& sampled,
                   std::span<TokenLogProb> top) {
  thread_local std::vector<int32_t> tokens;
  thread_local std::vector<float> log_probs;
  tokens.assign(1 + top.size(), sampled.token);
  log_probs.resize(tokens.size());
  best_tokens(logits, std::span(tokens).subspan(1));
  log_softmax_at(logits, tokens, log_probs);
  sampled.log_prob = log_probs.front();
  if (config.num_top_log_probs) sampled.rank = rank_of(logits, sampled.token);
  for (size_t i = 0; i < top.size(); ++i) top[i] = {tokens[1 + i], log_probs[1 + i]};
}

// A row of the calling thread's own, kept between calls to spare the allocation.
std::span<float> scratch_row(size_t size) {
  thread_local std::vector<float> row;
  row.resize(size);
  return row;
}

}  // namespace

Sampler::Sampler(int32_t max_batch_size, int32_t vocab_size) : vocab_size_(vocab_size), slots_(max_batch_size) {}

void Sampler::configure(int32_t slot_index, const SamplingConfig& config, std::span<const int32_t> prompt,
                        std::span<const int32_t> generated) {
  if (config.embedding_bias && config.embedding_bias->size() != static_cast<size_t>(vocab_size_)) {
    throw_error(ErrorCode::kInvalidArgument, "embedding_bias has ", config.embedding_bias->size(),
                " values; the vocabulary has ", vocab_size_);
  }
  if (config.num_candidates < 0 || config.num_candidates > vocab_size_) {
    throw_error(ErrorCode::kInvalidArgument, config.num_candidates, " candidates; the vocabulary has ", vocab_size_);
  }
  const int32_t num_top = config.num_top_log_probs.value_or(0);
  if (num_top < 0 || num_top > vocab_size_) {
    throw_error(ErrorCode::kInvalidArgument, num_top, " top log-probs; the vocabulary has ", vocab_size_);
  }
  Slot& slot = slots_[slot_index];
  const auto outside = [this](int32_t token) { return token < 0 || token >= vocab_size_; };
  slot.config = config;
  std::erase_if(slot.config.end_ids, outside);
  slot.prompt_length = static_cast<int32_t>(prompt.size());
  slot.num_generated = 0;
  slot.top_p = config.top_p;

  slot.seen.clear();
  if (has_penalties(config)) {
    std::vector<int32_t> tokens(prompt.begin(), prompt.end());
    std::erase_if(tokens, outside);
    std::ranges::sort(tokens);
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (const int32_t token : tokens) slot.seen.push_back({token, 0});
  }
  slot.bad_word_beginning = WordAutomaton::kStart;
  for (const int32_t token : prompt.last(std::min<size_t>(prompt.size(), config.bad_words.look_back()))) {
    slot.bad_word_beginning = config.bad_words.next(slot.bad_word_beginning, token);
  }
  for (const int32_t token : generated) remember(slot, token);
}

SampledToken Sampler::sample(int32_t slot_index, std::span<const float> logits, std::span<const uint32_t> mask,
                             std::span<TokenLogProb> top_log_probs) {
  Slot& slot = slots_[slot_index];
  const SamplingConfig& config = slot.config;

  std::span<const float> scores = logits;
  if (adjusts(slot, mask)) {
    const std::span<float> row = scratch_row(logits.size());
    std::ranges::copy(logits, row.begin());
    adjust(slot, mask, row);
    scores = row;
  }
  const DrawSettings settings = {config.top_k, slot.top_p, config.min_p, config.temperature};
  int32_t token = is_greedy(settings)
                      ? argmax(scores)
                      : draw(scores, settings, uniform(config.random_seed, static_cast<uint64_t>(slot.num_generated)));
  if (token == kNoToken) token = config.end_ids.empty() ? 0 : config.end_ids.front();
  remember(slot, token);
  SampledToken sampled = {slot_index, token, 0.0f};
  if (config.return_log_probs) add_log_probs(config, logits, sampled, top_log_probs);
  return sampled;
}

void Sampler::candidates(int32_t slot_index, std::span<const float> logits, std::span<const uint32_t> mask,
                         std::span<SampledToken> best) const {
  const Slot& slot = slots_[slot_index];
  const std::span<float> scores = scratch_row(logits.size());
  log_softmax(logits, scores);
  if (adjusts(slot, mask)) adjust(slot, mask, scores);

  thread_local std::vector<int32_t> tokens;
  tokens.resize(best.size());
  best_tokens(scores, tokens);
  std::ranges::transform(tokens, best.begin(), [&](int32_t token) {
    return SampledToken{slot_index, token, scores[token] > kMasked ? scores[token] : kMasked};
  });
}

void Sampler::follow(int32_t slot_index, int32_t position, int32_t token) {
  Slot& slot = slots_[slot_index];
  if (position == slot.prompt_length + slot.num_generated) remember(slot, token);
}

bool Sampler::adjusts(const Slot& slot, std::span<const uint32_t> mask) const {
  const SamplingConfig& config = slot.config;
  return config.embedding_bias != nullptr || !slot.seen.empty() || !config.bad_words.empty() || !mask.empty() ||
         (slot.num_generated < config.min_length && !config.end_ids.empty());
}

void Sampler::adjust(const Slot& slot, std::span<const uint32_t> mask, std::span<float> scores) const {
  const SamplingConfig& config = slot.config;
  if (config.embedding_bias) {
    std::ranges::transform(scores, *config.embedding_bias, scores.begin(), std::plus<>());
  }
  for (const auto [token, generated_count] : slot.seen) penalize(config, generated_count, scores[token]);
  config.bad_words.for_each_banned(slot.bad_word_beginning, [&](int32_t token) {
    if (token >= 0 && token < vocab_size_) scores[token] = kMasked;
  });
  if (!mask.empty()) mask_tokens(mask, scores);
  if (slot.num_generated < config.min_length) {
    for (const int32_t token : config.end_ids) scores[token] = kMasked;
  }
}

void Sampler::remember(Slot& slot, int32_t token) const {
  const SamplingConfig& config = slot.config;
  ++slot.num_generated;
  if (config.top_p > 0.0f) {
    slot.top_p =
        token == config.top_p_reset_id ? config.top_p : std::max(config.top_p_min, slot.top_p * config.top_p_decay);
  }
  if (has_penalties(config) && token >= 0 && token < vocab_size_) {
    auto place = std::ranges::lower_bound(slot.seen, token, {}, &SeenToken::token);
    if (place == slot.seen.end() || place->token != token) place = slot.seen.insert(place, {token, 0});
    ++place->generated_count;
  }
  slot.bad_word_beginning = config.bad_words.next(slot.bad_word_beginning, token);
}

}  // namespace inflight
