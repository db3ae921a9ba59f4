#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <thread>

#include "check.h"
#include "engine/token_choice.h"

using namespace inflight;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_logits(int32_t size, uint32_t seed, float deviation = 3.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(generator);
  return logits;
}

// softmax(logits / temperature) cut to min_p, to top_k, then to top_p: by sorting all, in double precision.
std::vector<double> reference_probabilities(const std::vector<float>& logits, const DrawSettings& settings) {
  const auto& [top_k, top_p, min_p, temperature] = settings;
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(top_k)));
  std::vector<double> weights;
  for (const int32_t token : order) {
    const double weight = std::exp((static_cast<double>(logits[token]) - logits[order[0]]) / temperature);
    if (weight < min_p) break;
    weights.push_back(weight);
  }
  order.resize(weights.size());
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> probabilities(logits.size(), 0.0);
  double kept = 0.0;
  for (size_t i = 0; i < order.size() && (top_p == 0.0f || kept < top_p * total); ++i) {
    kept += weights[i];
    probabilities[order[i]] = weights[i];
  }
  for (double& probability : probabilities) probability /= kept;
  return probabilities;
}

// Draws at three places in every token's share of [0, 1).
void check_draws(const std::vector<float>& logits, const DrawSettings& settings) {
  const auto expected = reference_probabilities(logits, settings);
  double begin = 0.0;
  for (size_t token = 0; token < expected.size(); ++token) {
    const double end = begin + expected[token];
    if (expected[token] > 1e-5) {
      for (const double share : {0.1, 0.5, 0.9}) {
        CHECK_EQ(draw(logits, settings, begin + share * expected[token]), static_cast<int32_t>(token));
      }
    }
    begin = end;
  }
}

SampledToken sample(Sampler& sampler, int32_t slot, const std::vector<float>& logits,
                    const std::vector<uint32_t>& mask = {}) {
  return sampler.sample(slot, logits, mask);
}

// Allows `allowed` of a vocabulary of `size`; bits past its end are set, which must not matter.
std::vector<uint32_t> make_mask(size_t size, const std::set<int32_t>& allowed) {
  std::vector<uint32_t> mask((size + 31) / 32);
  for (size_t i = size; i < mask.size() * 32; ++i) mask[i / 32] |= 1u << i % 32;
  for (const int32_t token : allowed) mask[token / 32] |= 1u << token % 32;
  return mask;
}

std::vector<std::pair<int32_t, float>> best_candidates(const Sampler& sampler, const std::vector<float>& logits,
                                                       const std::vector<uint32_t>& mask = {}) {
  std::vector<SampledToken> best(sampler.num_candidates(0));
  sampler.candidates(0, logits, mask, best);
  std::vector<std::pair<int32_t, float>> pairs;
  for (const SampledToken& candidate : best) pairs.emplace_back(candidate.token, candidate.log_prob);
  return pairs;
}

// Everything that looks at the history, or at where in it a token stands.
SamplingConfig with_everything(int32_t num_tokens) {
  return {.top_k = 40,
          .top_p = 0.95f,
          .temperature = 0.9f,
          .random_seed = 77,
          .top_p_decay = 0.8f,
          .top_p_min = 0.2f,
          .top_p_reset_id = 3,
          .repetition_penalty = 1.3f,
          .presence_penalty = 0.4f,
          .frequency_penalty = 0.2f,
          .min_length = 30,
          .end_ids = {5, 6},
          .bad_words = {{1}, {2, 3}, {4, 7, 9}, {0, 0, 0, 0}},
          .embedding_bias = std::make_shared<const std::vector<float>>(random_logits(num_tokens, 99, 0.5f)),
          .return_log_probs = true};
}

int32_t greedy_token(const SamplingConfig& config, const std::vector<int32_t>& prompt,
                     const std::vector<float>& logits) {
  Sampler sampler(1, static_cast<int32_t>(logits.size()));
  sampler.configure(0, config, prompt);
  return sample(sampler, 0, logits).token;
}

}  // namespace

TEST(greedy_takes_the_highest_logit_and_the_lowest_token_among_equals) {
  for (const int32_t size : {1, 5, 16, 17, 1024, 1025, 5000}) {
    std::vector<float> logits = random_logits(size, static_cast<uint32_t>(size));
    CHECK_EQ(argmax(logits), std::ranges::max_element(logits) - logits.begin());
    std::ranges::fill(logits, -2.0f);
    CHECK_EQ(argmax(logits), 0);
    logits[size - 1] = -1.0f;
    CHECK_EQ(argmax(logits), size - 1);
    logits[size / 2] = -1.0f;
    CHECK_EQ(argmax(logits), size / 2);
  }
}

TEST(settings_without_chance_are_greedy) {
  const auto logits = random_logits(100, 1);
  const int32_t best = argmax(logits);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    CHECK_EQ(greedy_token({.random_seed = seed}, {}, logits), best);
    CHECK_EQ(greedy_token({.top_k = 1, .top_p = 0.9f, .random_seed = seed}, {}, logits), best);
    CHECK_EQ(greedy_token({.top_k = 50, .temperature = 0.0f, .random_seed = seed}, {}, logits), best);
    CHECK_EQ(greedy_token({.top_p = 0.9f, .temperature = 1e-6f, .random_seed = seed}, {}, logits), best);
    CHECK_EQ(greedy_token({.min_p = 1.0f, .random_seed = seed}, {}, logits), best);
  }
}

TEST(draws_follow_the_distribution_after_temperature_min_p_top_k_and_top_p) {
  const auto logits = random_logits(1000, 2);
  for (const float temperature : {0.3f, 1.0f, 2.5f}) {
    for (const int32_t top_k : {0, 2, 50, 999, 1000}) {
      for (const float top_p : {0.0f, 1e-6f, 0.3f, 0.9f, 0.999f, 1.0f}) {
        for (const float min_p : {0.0f, 1e-3f, 0.1f, 1.0f}) {
          const DrawSettings settings = {top_k, top_p, min_p, temperature};
          if (!is_greedy(settings)) check_draws(logits, settings);
        }
      }
    }
  }
}

TEST(draws_follow_the_distribution_over_a_large_vocabulary) {
  const auto logits = random_logits(151936, 3, 2.0f);
  check_draws(logits, {.top_k = 50, .top_p = 0.9f});
  check_draws(logits, {.top_p = 0.01f});
  check_draws(logits, {.min_p = 0.05f});
  check_draws(logits, {.top_p = 0.9f, .temperature = 0.2f});
}

TEST(ties_at_a_cut_go_to_the_lower_tokens) {
  const std::vector<float> logits(64, 1.5f);
  std::set<int32_t> drawn;
  for (int i = 0; i < 1000; ++i) drawn.insert(draw(logits, {.top_k = 4}, i / 1000.0));
  CHECK(drawn == (std::set<int32_t>{0, 1, 2, 3}));
  drawn.clear();
  for (int i = 0; i < 1000; ++i) drawn.insert(draw(logits, {.top_p = 0.124f}, i / 1000.0));
  CHECK(drawn == (std::set<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(the_ends_of_the_unit_interval_are_the_ends_of_the_distribution) {
  const std::vector<float> logits = {-kInfinity, 0.0f, 1.0f, -200.0f};
  CHECK_EQ(draw(logits, {.top_p = 1.0f}, 0.0), 1);
  CHECK_EQ(draw(logits, {.top_p = 1.0f}, std::nextafter(1.0, 0.0)), 2);
  CHECK_EQ(draw(logits, {.top_k = 4}, std::nextafter(1.0, 0.0)), 2);
}

TEST(log_probs_are_of_the_raw_logits) {
  const auto logits = random_logits(5000, 4);
  double total = 0.0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  const SamplingConfig config = {
      .top_k = 20, .temperature = 0.5f, .repetition_penalty = 1.7f, .return_log_probs = true};
  Sampler sampler(1, 5000);
  std::vector<int32_t> prompt(5000);
  std::iota(prompt.begin(), prompt.end(), 0);
  sampler.configure(0, config, prompt);
  for (int i = 0; i < 10; ++i) {
    const SampledToken result = sampler.sample(0, logits);
    CHECK(std::abs(result.log_prob - (logits[result.token] - std::log(total))) < 1e-5);
  }
}

TEST(top_log_probs_are_the_most_likely_tokens_of_the_raw_logits) {
  constexpr int32_t kVocabulary = 3000;
  const auto logits = random_logits(kVocabulary, 6);
  std::vector<float> all(kVocabulary);
  log_softmax(logits, all);
  std::vector<int32_t> order(kVocabulary);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  Sampler sampler(1, kVocabulary);
  for (const int32_t count : {0, 1, 5, 20}) {
    // The mask leaves one token, which is not a likely one.
    const int32_t only = order[700];
    sampler.configure(0, {.return_log_probs = true, .num_top_log_probs = count}, {});
    CHECK_EQ(sampler.num_top_log_probs(0), count);
    std::vector<TokenLogProb> top(count);
    const SampledToken sampled = sampler.sample(0, logits, make_mask(kVocabulary, {only}), top);
    CHECK_EQ(sampled.token, only);
    CHECK_EQ(sampled.rank, 701);
    CHECK_EQ(sampled.log_prob, all[only]);
    for (int32_t i = 0; i < count; ++i) {
      CHECK_EQ(top[i].token, order[i]);
      CHECK_EQ(top[i].log_prob, all[order[i]]);
    }
  }
  CHECK_ERROR(sampler.configure(0, {.num_top_log_probs = kVocabulary + 1}, {}), ErrorCode::kInvalidArgument,
              "3001 top log-probs");
}

TEST(log_probs_are_left_out_unless_asked_for) {
  Sampler sampler(1, 10);
  sampler.configure(0, {}, {});
  CHECK_EQ(sample(sampler, 0, random_logits(10, 5)).log_prob, 0.0f);
}

TEST(repetition_penalty_covers_prompt_and_generated_tokens) {
  Sampler sampler(1, 4);
  sampler.configure(0, {.repetition_penalty = 2.0f}, std::vector<int32_t>{0, 0});
  CHECK_EQ(sample(sampler, 0, {3.0f, 2.0f, 1.8f, -9.0f}).token, 1);  // 1.5, 2, 1.8
  CHECK_EQ(sample(sampler, 0, {3.0f, 2.0f, 1.8f, -9.0f}).token, 2);  // 1.5, 1, 1.8
  CHECK_EQ(sample(sampler, 0, {3.0f, 2.0f, 1.8f, -9.0f}).token, 0);  // 1.5, 1, 0.9
  CHECK_EQ(sample(sampler, 0, {-1.0f, -1.1f, -1.2f, -1.9f}).token, 3);  // negative logits go down, too
}

TEST(presence_and_frequency_penalties_cover_generated_tokens_only) {
  Sampler sampler(1, 2);
  const std::vector<int32_t> prompt = {0, 0, 0};
  sampler.configure(0, {.frequency_penalty = 1.0f}, prompt);
  CHECK_EQ(sample(sampler, 0, {2.5f, 1.0f}).token, 0);  // 2.5
  CHECK_EQ(sample(sampler, 0, {2.5f, 1.0f}).token, 0);  // 1.5
  CHECK_EQ(sample(sampler, 0, {2.5f, 1.0f}).token, 1);  // 0.5
  sampler.configure(0, {.presence_penalty = 1.0f}, prompt);
  for (int i = 0; i < 5; ++i) CHECK_EQ(sample(sampler, 0, {2.5f, 1.0f}).token, 0);  // never below 1.5
  CHECK_EQ(sample(sampler, 0, {1.9f, 1.0f}).token, 1);
}

TEST(penalties_and_masks_shape_the_sampled_distribution) {
  const auto logits = random_logits(50, 6, 1.0f);
  const std::vector<int32_t> prompt = {3, 4, 5, 3};
  const SamplingConfig config = {.top_k = 12,
                                 .top_p = 0.9f,
                                 .temperature = 0.8f,
                                 .repetition_penalty = 1.5f,
                                 .presence_penalty = 0.5f,
                                 .frequency_penalty = 0.3f,
                                 .min_length = 2,
                                 .end_ids = {7},
                                 .bad_words = {{9}}};
  constexpr int kDraws = 20000;
  std::map<int32_t, std::map<int32_t, int>> seconds;  // first token → second token → how often
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    Sampler sampler(1, 50);
    SamplingConfig seeded = config;
    seeded.random_seed = seed;
    sampler.configure(0, seeded, prompt);
    const int32_t first = sample(sampler, 0, logits).token;
    ++seconds[first][sample(sampler, 0, logits).token];
  }
  for (const auto& [first, counts] : seconds) {
    auto adjusted = logits;
    for (const int32_t token : std::set<int32_t>{3, 4, 5, first}) {
      adjusted[token] *= adjusted[token] > 0 ? 1 / 1.5f : 1.5f;
    }
    adjusted[first] -= 0.8f;
    adjusted[7] = adjusted[9] = -kInfinity;
    const auto expected = reference_probabilities(adjusted, {.top_k = 12, .top_p = 0.9f, .temperature = 0.8f});
    int draws = 0;
    for (const auto& [token, count] : counts) draws += count;
    double chi_square = 0.0;
    for (int32_t token = 0; token < 50; ++token) {
      const int count = counts.count(token) ? counts.at(token) : 0;
      if (expected[token] == 0.0) {
        CHECK_EQ(count, 0);
      } else {
        chi_square += std::pow(count - draws * expected[token], 2) / (draws * expected[token]);
      }
    }
    CHECK(chi_square < 35.0);  // at most 11 degrees of freedom: p > 2e-4
  }
}

TEST(end_ids_stay_masked_until_min_length) {
  Sampler sampler(1, 4);
  sampler.configure(0, {.min_length = 2, .end_ids = {2, 3}}, {});
  const std::vector<float> logits = {0.0f, 1.0f, 2.0f, 3.0f};
  CHECK_EQ(sample(sampler, 0, logits).token, 1);
  CHECK_EQ(sample(sampler, 0, logits).token, 1);
  CHECK_EQ(sample(sampler, 0, logits).token, 3);
}

TEST(bad_words_are_never_completed) {
  const std::vector<float> logits = {0.0f, 1.0f, 2.0f, 3.0f, 4.0f};
  CHECK_EQ(greedy_token({.bad_words = {{4}, {3}}}, {}, logits), 2);
  // The prompt counts, in full and only at the end of the history.
  CHECK_EQ(greedy_token({.bad_words = {{1, 2, 4}}}, {0, 1, 2}, logits), 3);
  CHECK_EQ(greedy_token({.bad_words = {{1, 2, 4}}}, {1, 2, 0}, logits), 4);
  CHECK_EQ(greedy_token({.bad_words = {{1, 2, 4}}}, {2}, logits), 4);

  Sampler sampler(1, 5);
  sampler.configure(0, {.bad_words = {{4, 4, 4}, {0, 4, 4, 3, 4}}}, std::vector<int32_t>{0});
  std::vector<int32_t> tokens;
  for (int i = 0; i < 8; ++i) tokens.push_back(sample(sampler, 0, logits).token);
  CHECK(tokens == (std::vector<int32_t>{4, 4, 3, 3, 4, 4, 3, 4}));
}

TEST(ids_outside_the_vocabulary_are_ignored) {
  const SamplingConfig config = {.repetition_penalty = 2.0f,
                                 .min_length = 1,
                                 .end_ids = {-1, 4, 1 << 30},
                                 .bad_words = {{-1}, {4}, {1, 99}, {99, 1}, {}}};
  CHECK_EQ(greedy_token(config, {-5, 4, 1 << 30}, {0.0f, 1.0f, 2.0f, 3.0f}), 3);
}

TEST(rows_without_a_usable_logit_end_the_sequence) {
  for (const float value : {-kInfinity, kNan}) {
    const std::vector<float> logits(20, value);
    for (const SamplingConfig& config : {SamplingConfig{}, SamplingConfig{.top_k = 5}, SamplingConfig{.top_p = 0.5f}}) {
      CHECK_EQ(greedy_token(config, {}, logits), 0);
      SamplingConfig ending = config;
      ending.end_ids = {11, 12};
      CHECK_EQ(greedy_token(ending, {}, logits), 11);
    }
  }
  CHECK_EQ(greedy_token({.top_p = 1.0f, .end_ids = {1}, .bad_words = {{0}, {1}}}, {}, {0.0f, 1.0f}), 1);
}

TEST(infinite_and_nan_logits_do_not_derail_the_others) {
  CHECK_EQ(greedy_token({.top_k = 3}, {}, {kNan, 1.0f, kInfinity, kInfinity}), 2);
  CHECK_EQ(greedy_token({.top_p = 0.5f}, {}, {kNan, 9.0f, kNan, -kInfinity}), 1);
  CHECK_EQ(greedy_token({.top_k = 2}, {}, {-kInfinity, kNan, -kInfinity, 2.0f}), 3);
  Sampler sampler(1, 3);
  sampler.configure(0, {.return_log_probs = true}, {});
  CHECK_EQ(sample(sampler, 0, {kNan, 0.0f, kInfinity}).log_prob, 0.0f);
}

TEST(results_depend_on_seed_and_position_not_on_slot_or_neighbors) {
  const auto logits = random_logits(2000, 7, 1.0f);
  const auto run = [&](Sampler& sampler, int32_t slot, uint64_t seed, bool noisy) {
    sampler.configure(slot, {.top_p = 1.0f, .random_seed = seed}, {});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) {
      tokens.push_back(sample(sampler, slot, logits).token);
      if (noisy) sample(sampler, 7, logits);
    }
    return tokens;
  };
  Sampler sampler(8, 2000);
  sampler.configure(7, {.top_k = 40, .random_seed = 9}, {});
  const auto alone = run(sampler, 0, 1234, false);
  CHECK(run(sampler, 5, 1234, true) == alone);
  CHECK(run(sampler, 5, 1235, true) != alone);
  CHECK(std::set<int32_t>(alone.begin(), alone.end()).size() > 10);
}

TEST(slots_can_be_sampled_from_different_threads) {
  const auto logits = random_logits(2000, 8);
  const SamplingConfig config = {.top_k = 100, .top_p = 0.9f, .repetition_penalty = 1.2f, .bad_words = {{1, 2}}};
  const auto run = [&](Sampler& sampler, int32_t slot) {
    sampler.configure(slot, config, std::vector<int32_t>{1, 2, 3});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 100; ++i) tokens.push_back(sample(sampler, slot, logits).token);
    return tokens;
  };
  Sampler sampler(8, 2000);
  const auto alone = run(sampler, 0);
  std::vector<std::vector<int32_t>> results(8);
  std::vector<std::thread> threads;
  for (int32_t slot = 0; slot < 8; ++slot) threads.emplace_back([&, slot] { results[slot] = run(sampler, slot); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& tokens : results) CHECK(tokens == alone);
}

TEST(bias_comes_before_penalties) {
  const auto biased = [](std::vector<float> bias) {
    return SamplingConfig{.repetition_penalty = 2.0f,
                          .embedding_bias = std::make_shared<const std::vector<float>>(std::move(bias))};
  };
  CHECK_EQ(greedy_token(biased({0.0f, 0.0f, 5.0f}), {}, {3.0f, 2.0f, 1.0f}), 2);
  CHECK_EQ(greedy_token(biased({1.0f, 0.0f, 0.0f}), {0}, {3.0f, 2.1f, 1.0f}), 1);  // (3 + 1) / 2
  CHECK_EQ(greedy_token(biased({-kInfinity, kNan, 0.0f}), {}, {3.0f, 2.0f, 1.0f}), 2);
  Sampler sampler(1, 3);
  CHECK_ERROR(sampler.configure(0, biased({1.0f}), {}), ErrorCode::kInvalidArgument, "embedding_bias has 1 values");
}

TEST(top_p_decays_to_its_minimum_and_starts_again_after_the_reset_id) {
  // Four equal tokens: top_p 0.76 .. 1 leaves four, 0.51 .. three, 0.26 .. two, less only token 0.
  const std::vector<float> logits(4, 0.0f);
  const auto support = [&](const SamplingConfig& config, const std::vector<int32_t>& generated) {
    std::set<int32_t> tokens;
    for (uint64_t seed = 0; seed < 300; ++seed) {
      SamplingConfig seeded = config;
      seeded.random_seed = seed;
      Sampler sampler(1, 4);
      sampler.configure(0, seeded, {}, generated);
      tokens.insert(sample(sampler, 0, logits).token);
    }
    return tokens.size();
  };
  const SamplingConfig config = {.top_p = 0.9f, .top_p_decay = 0.7f, .top_p_min = 0.3f, .top_p_reset_id = 2};
  CHECK_EQ(support(config, {}), 4u);
  CHECK_EQ(support(config, {1}), 3u);           // 0.63
  CHECK_EQ(support(config, {1, 1}), 2u);        // 0.441
  CHECK_EQ(support(config, {1, 1, 1, 1}), 2u);  // 0.3
  CHECK_EQ(support(config, {1, 1, 1, 2}), 4u);
  CHECK_EQ(support(config, {1, 1, 2, 0}), 3u);
  // A top_p that was left out stays so.
  CHECK_EQ(support({.top_k = 4, .top_p_decay = 0.5f}, {1, 1, 1}), 4u);
}

TEST(masked_tokens_are_never_sampled) {
  const auto logits = random_logits(100, 20);
  const std::set<int32_t> allowed = {3, 31, 32, 64, 95, 96, 99};
  const auto mask = make_mask(100, allowed);
  for (const SamplingConfig& config : {SamplingConfig{}, SamplingConfig{.top_k = 50}, SamplingConfig{.top_p = 1.0f}}) {
    std::set<int32_t> drawn;
    for (uint64_t seed = 0; seed < 500; ++seed) {
      SamplingConfig seeded = config;
      seeded.random_seed = seed;
      Sampler sampler(1, 100);
      sampler.configure(0, seeded, {});
      drawn.insert(sample(sampler, 0, logits, mask).token);
    }
    CHECK(std::ranges::includes(allowed, drawn));
    if (config.top_k > 0 || config.top_p > 0.0f) CHECK(drawn.size() > 2);
  }
}

TEST(a_mask_that_leaves_nothing_ends_the_sequence) {
  Sampler sampler(1, 40);
  sampler.configure(0, {.end_ids = {7, 8}}, {});
  CHECK_EQ(sample(sampler, 0, random_logits(40, 21), make_mask(40, {})).token, 7);
  sampler.configure(0, {.end_ids = {7}, .bad_words = {{9}}}, {});
  CHECK_EQ(sample(sampler, 0, random_logits(40, 21), make_mask(40, {9})).token, 7);
  CHECK_ERROR(sample(sampler, 0, random_logits(40, 21), {~0u}), ErrorCode::kInternal, "mask of 1 words");
}

TEST(a_slot_configured_with_its_history_goes_on_as_if_it_had_never_paused) {
  constexpr int32_t kVocabulary = 60, kLength = 80;
  const std::vector<int32_t> prompt = {0, 4, 7, 11, 12, 0};
  std::vector<SamplingConfig> configs = {with_everything(kVocabulary), {}, {.top_p = 1.0f, .random_seed = 4}};
  configs.push_back(with_everything(kVocabulary));
  configs.back().top_k = 1;
  for (const SamplingConfig& config : configs) {
    Sampler sampler(2, kVocabulary);
    sampler.configure(0, config, prompt);
    std::vector<int32_t> generated;
    for (uint32_t i = 0; i < kLength; ++i) {
      const auto logits = random_logits(kVocabulary, 1000 + i, 1.5f);
      // As a resumed sequence, a step behind: the same token, whatever it was before.
      sampler.configure(1, config, prompt, generated);
      const SampledToken resumed = sample(sampler, 1, logits), expected = sample(sampler, 0, logits);
      CHECK_EQ(resumed.token, expected.token);
      CHECK_EQ(resumed.log_prob, expected.log_prob);
      generated.push_back(expected.token);
    }
  }
}

TEST(candidates_are_the_best_log_probs) {
  for (const int32_t size : {3, 16, 500, 20000}) {
    const auto logits = random_logits(size, 30);
    double total = 0.0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit));
    std::vector<int32_t> order(size);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    for (const int32_t count : {1, 2, 3, 16}) {
      if (count > size) continue;
      Sampler sampler(1, size);
      sampler.configure(0, {.top_k = 1, .temperature = 0.1f, .num_candidates = count}, {});
      const auto best = best_candidates(sampler, logits);
      for (int32_t i = 0; i < count; ++i) {
        CHECK_EQ(best[i].first, order[i]);
        CHECK(std::abs(best[i].second - (logits[order[i]] - std::log(total))) < 1e-5);
      }
      CHECK(best_candidates(sampler, logits) == best);  // nothing is remembered
    }
  }
  Sampler sampler(1, 4);
  CHECK_ERROR(sampler.configure(0, {.num_candidates = 5}, {}), ErrorCode::kInvalidArgument, "5 candidates");
}

TEST(bias_penalties_and_masks_apply_to_the_log_probs_of_candidates) {
  const std::vector<float> logits = {2.0f, 1.0f, 0.0f, -1.0f, 3.0f, 0.5f};
  SamplingConfig config = {.repetition_penalty = 2.0f,
                           .min_length = 1,
                           .end_ids = {4},
                           .bad_words = {{0, 1}},
                           .embedding_bias = std::make_shared<const std::vector<float>>(
                               std::vector<float>{0.0f, 0.0f, 0.0f, 1.25f, 0.0f, 0.0f})};
  config.num_candidates = 5;
  Sampler sampler(1, 6);
  sampler.configure(0, config, std::vector<int32_t>{0});
  double total = 0.0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  const auto log_prob = [&](int32_t token) { return static_cast<float>(logits[token] - std::log(total)); };
  const auto best = best_candidates(sampler, logits, make_mask(6, {0, 1, 2, 3, 4}));
  // log_prob(0) < 0 doubles; 3 is biased over 2; 1 is a bad word, 4 an end id, 5 is masked: equal, lowest first.
  const std::vector<std::pair<int32_t, float>> expected = {
      {0, 2 * log_prob(0)}, {3, log_prob(3) + 1.25f}, {2, log_prob(2)}, {1, -kInfinity}, {4, -kInfinity}};
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK_EQ(best[i].first, expected[i].first);
    CHECK(best[i].second == expected[i].second || std::abs(best[i].second - expected[i].second) < 1e-5);
  }
}

TEST(equal_candidates_come_from_the_lowest_token_on) {
  Sampler sampler(1, 300);
  sampler.configure(0, {.num_candidates = 4}, {});
  std::vector<float> logits(300, 1.0f);
  const auto tokens = [&] {
    std::vector<int32_t> result;
    for (const auto& [token, log_prob] : best_candidates(sampler, logits)) result.push_back(token);
    return result;
  };
  CHECK(tokens() == (std::vector<int32_t>{0, 1, 2, 3}));
  logits[200] = logits[250] = 2.0f;
  CHECK(tokens() == (std::vector<int32_t>{200, 250, 0, 1}));
  std::ranges::fill(logits, -kInfinity);
  CHECK(tokens() == (std::vector<int32_t>{0, 1, 2, 3}));
  logits[1] = logits[150] = 0.0f;
  logits[0] = kNan;
  CHECK(tokens() == (std::vector<int32_t>{1, 150, 0, 2}));
  CHECK_EQ(best_candidates(sampler, logits)[2].second, -kInfinity);
  logits[7] = kInfinity;
  CHECK(best_candidates(sampler, logits)[0] == (std::pair<int32_t, float>{7, 0.0f}));
}

TEST(a_beam_that_follows_its_tokens_equals_one_configured_with_them) {
  constexpr int32_t kVocabulary = 60;
  const std::vector<int32_t> prompt = {0, 4, 7, 11, 12, 0};
  SamplingConfig config = with_everything(kVocabulary);
  config.num_candidates = 6;
  Sampler followed(1, kVocabulary), configured(1, kVocabulary);
  followed.configure(0, config, prompt);
  std::vector<int32_t> tokens = prompt;
  for (size_t position = 0; position < prompt.size(); ++position) {
    followed.follow(0, static_cast<int32_t>(position), prompt[position]);
  }
  for (uint32_t i = 0; i < 50; ++i) {
    configured.configure(0, config, prompt, std::span(tokens).subspan(prompt.size()));
    const auto logits = random_logits(kVocabulary, 2000 + i, 1.5f);
    const auto best = best_candidates(followed, logits);
    CHECK(best == best_candidates(configured, logits));
    tokens.push_back(best[i % 3].first);
    for (int repeat = 0; repeat < 2; ++repeat) {  // what it knows already changes nothing
      followed.follow(0, static_cast<int32_t>(tokens.size()) - 1, tokens.back());
    }
  }
}

TEST_MAIN()
