// Sampling on a GPU against the CPU's sampler.

#include <algorithm>
#include <limits>
#include <random>

#include "device.cuh"
#include "engine/tensorrt/kernels/sampling.h"
#include "engine/token_choice.h"
#include "tests.h"

namespace inflight::gpu_test {
namespace {

using gpu::LogitType;
using gpu::SamplingRow;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// sampler.cc's
double uniform(uint64_t seed, uint64_t count) {
  const auto mix = [](uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  };
  return static_cast<double>(mix(mix(seed) ^ count) >> 11) * 0x1p-53;
}

struct Batch {
  const char* name;
  std::vector<std::vector<float>> rows;
};

std::vector<Batch> batches(int vocab_size, int count) {
  std::mt19937 random(vocab_size);
  std::normal_distribution<float> normal;
  const auto rows_of = [&](auto value) {
    std::vector<std::vector<float>> rows(count, std::vector<float>(vocab_size));
    for (auto& row : rows) {
      for (auto& logit : row) logit = value();
    }
    return rows;
  };
  std::vector<Batch> all;
  all.push_back({"peaked", rows_of([&] { return 5 * normal(random); })});
  all.push_back({"usual", rows_of([&] { return 2 * normal(random); })});
  all.push_back({"flat", rows_of([] { return 1.5f; })});
  all.push_back({"ties", rows_of([&] { return static_cast<float>(random() % 3); })});
  all.push_back({"almost flat", rows_of([&] { return 0.01f * normal(random); })});
  all.push_back({"mostly masked", rows_of([&] { return random() % 1000 ? -kInfinity : normal(random); })});
  all.push_back({"with NaN", rows_of([&] { return random() % 7 ? normal(random) : std::nanf(""); })});
  return all;
}

const SamplingRow kSettings[] = {
    {.top_k = 0, .top_p = 0, .temperature = 1},      {.top_k = 1, .top_p = 0.5, .temperature = 2},
    {.top_k = 50, .top_p = 0.9, .temperature = 0.8}, {.top_k = 50, .top_p = 0, .temperature = 1},
    {.top_k = 0, .top_p = 0.9, .temperature = 1},    {.top_k = 0, .top_p = 0.95, .temperature = 2},
    {.top_k = 0, .top_p = 1, .temperature = 1},      {.top_k = 1000, .top_p = 0.99, .temperature = 1.5},
    {.top_k = 5000, .top_p = 0.7, .temperature = 1}, {.top_k = 0, .top_p = 0.9999, .temperature = 0.5},
    {.top_k = 900, .top_p = 0, .temperature = 0},    {.top_k = 3, .top_p = 0.999, .temperature = 3},
};

template <class T>
constexpr LogitType logit_type() {
  if constexpr (std::is_same_v<T, float>) return LogitType::kFloat32;
  return std::is_same_v<T, __half> ? LogitType::kFloat16 : LogitType::kBFloat16;
}

// Rounds the rows to T, on the device and in place.
template <class T>
Array<T> upload(std::vector<std::vector<float>>& rows) {
  std::vector<T> all;
  for (auto& row : rows) {
    for (auto& logit : row) {
      all.push_back(T(logit));
      logit = static_cast<float>(all.back());
    }
  }
  return Array<T>(all);
}

template <class T>
void test_tokens(Report& report, int vocab_size) {
  constexpr int kRows = 4;
  for (auto& [name, rows] : batches(vocab_size, kRows)) {
    const Array<T> logits = upload<T>(rows);
    for (const SamplingRow& base : kSettings) {
      for (const float min_p : {0.0f, 0.05f}) {
        std::vector<SamplingRow> settings;
        for (int i = 0; i < kRows; ++i) {
          settings.push_back(base);
          settings.back().seed = 1234567 * i + base.top_k;
          settings.back().num_generated = i;
          settings.back().min_p = min_p;
        }
        const Array<SamplingRow> device_settings(settings);
        Array<int32_t> tokens(kRows);
        CHECK_CUDA(sample_tokens(logits.get(), logit_type<T>(), kRows, vocab_size, device_settings.get(), tokens.get(),
                                 nullptr));
        const auto got = tokens.host();
        for (int i = 0; i < kRows; ++i) {
          const DrawSettings draw_settings{std::min(base.top_k, vocab_size), base.top_p, min_p, base.temperature};
          const int32_t expected =
              is_greedy(draw_settings) ? argmax(rows[i]) : draw(rows[i], draw_settings, uniform(settings[i].seed, i));
          const std::string what = std::string(name) + " of " + std::to_string(vocab_size) + " top-k " +
                                   std::to_string(base.top_k) + " top-p " + std::to_string(base.top_p) + " min-p " +
                                   std::to_string(min_p) + ": " + std::to_string(got[i]) + ", expected " +
                                   std::to_string(expected);
          // Where top-p or the draw falls on a boundary, the CPU's single-precision total may decide otherwise.
          report.count("sample_tokens", what, got[i] == expected, 4);
          report.compare("sampled tokens are kept", what, rows[i][got[i]] > -kInfinity ? 0 : 1, 0);
        }
      }
    }
  }
}

template <class T>
void test_log_probs(Report& report, int vocab_size) {
  constexpr int kRows = 3, kCount = 20;
  for (auto& [name, rows] : batches(vocab_size, kRows)) {
    const Array<T> logits = upload<T>(rows);
    const std::vector<int32_t> tokens = {0, vocab_size / 2, vocab_size - 1};
    const Array<int32_t> device_tokens(tokens);
    Array<int32_t> best(kRows * kCount);
    Array<float> best_probs(kRows * kCount), probs(kRows);
    CHECK_CUDA(
        token_log_probs(logits.get(), logit_type<T>(), kRows, vocab_size, device_tokens.get(), probs.get(), nullptr));
    CHECK_CUDA(
        top_log_probs(logits.get(), logit_type<T>(), kRows, vocab_size, kCount, best.get(), best_probs.get(), nullptr));
    const auto got = best.host();
    const auto got_probs = best_probs.host(), token_probs = probs.host();
    const auto differs = [](float a, float b) {
      const bool same = a == b || (std::isnan(a) && (std::isnan(b) || b == -kInfinity));
      return same ? 0.0 : double{std::abs(a - b)};
    };
    for (int i = 0; i < kRows; ++i) {
      std::vector<int32_t> expected(kCount);
      best_tokens(rows[i], expected);
      const auto log_prob = [&](int32_t token) {
        float result;
        log_softmax_at(rows[i], {&token, 1}, {&result, 1});
        return result;
      };
      for (int j = 0; j < kCount; ++j) {
        const std::string what =
            std::string(name) + " of " + std::to_string(vocab_size) + " place " + std::to_string(j);
        const int32_t token = got[i * kCount + j];
        report.compare("top_log_probs", what + " token", token == expected[j] ? 0 : 1, 0);
        report.compare("top_log_probs", what, differs(log_prob(expected[j]), got_probs[i * kCount + j]), 1e-5);
      }
      report.compare("token_log_probs", name, differs(log_prob(tokens[i]), token_probs[i]), 1e-5);
    }
  }
}

void test_rows_without_a_token(Report& report) {
  std::vector<std::vector<float>> rows(3, std::vector<float>(1024, -kInfinity));
  rows[1][7] = rows[1][700] = kInfinity;
  rows[2][9] = std::nanf("");
  const auto logits = upload<float>(rows);
  const std::vector<SamplingRow> settings(3, SamplingRow{.top_k = 0, .top_p = 0.9f, .temperature = 1, .end_id = 42});
  const Array<SamplingRow> device_settings(settings);
  Array<int32_t> tokens(3);
  CHECK_CUDA(sample_tokens(logits.get(), LogitType::kFloat32, 3, 1024, device_settings.get(), tokens.get(), nullptr));
  report.compare("rows without a token", "", tokens.host() == std::vector<int32_t>{42, 7, 42} ? 0 : 1, 0);
  const auto refused =
      sample_tokens(logits.get(), LogitType::kFloat32, 3, 1021, device_settings.get(), tokens.get(), nullptr);
  report.compare("unaligned rows are refused", "", refused == cudaErrorInvalidValue ? 0 : 1, 0);
}

void test_adjustments(Report& report) {
  const int vocab_size = 1000;
  std::vector<std::vector<float>> rows = batches(vocab_size, 2)[1].rows;
  const auto logits = upload<__nv_bfloat16>(rows);
  std::vector<float> bias(vocab_size);
  for (int i = 0; i < vocab_size; ++i) bias[i] = 0.25f * (i % 5);
  std::vector<uint32_t> mask((vocab_size + 31) / 32, 0xfffffffe);
  const std::vector<int32_t> seen = {5, 6, 7, 999}, counts = {0, 1, 3, 2}, banned = {6, 11};
  const Array<float> device_bias(bias);
  const Array<uint32_t> device_mask(mask);
  const Array<int32_t> device_seen(seen), device_counts(counts), device_banned(banned);
  const gpu::LogitAdjustments nothing{.repetition_penalty = 1};
  const gpu::LogitAdjustments all{device_bias.get(),
                                  device_mask.get(),
                                  device_seen.get(),
                                  device_counts.get(),
                                  device_banned.get(),
                                  4,
                                  2,
                                  1.3f,
                                  0.5f,
                                  0.25f};
  const Array<gpu::LogitAdjustments> adjustments(std::vector{nothing, all});
  Array<float> adjusted(2 * vocab_size);
  CHECK_CUDA(
      adjust_logits(logits.get(), LogitType::kBFloat16, 2, vocab_size, adjustments.get(), adjusted.get(), nullptr));
  auto expected = rows;
  auto& row = expected[1];
  for (int i = 0; i < vocab_size; ++i) row[i] += bias[i];
  for (int i = 0; i < 4; ++i) {
    float& score = row[seen[i]];
    score = score > 0 ? score / 1.3f : score * 1.3f;
    if (counts[i] > 0) score -= 0.5f * static_cast<float>(counts[i]) + 0.25f;
  }
  for (int i = 0; i < vocab_size; ++i) row[i] = i % 32 == 0 ? -kInfinity : row[i];
  row[6] = row[11] = -kInfinity;
  const auto got = adjusted.host();
  for (int i = 0; i < vocab_size; ++i) {
    report.compare("adjust_logits", std::to_string(i), got[i] == rows[0][i] && got[vocab_size + i] == row[i] ? 0 : 1,
                   0);
  }
}

}  // namespace

static void test_vocabulary(Report& report, int vocab_size) {
  test_tokens<__nv_bfloat16>(report, vocab_size);
  test_tokens<__half>(report, vocab_size);
  test_tokens<float>(report, vocab_size);
  test_log_probs<__nv_bfloat16>(report, vocab_size);
  test_log_probs<float>(report, vocab_size);
}

void test_sampling(Report& report) {
  test_vocabulary(report, 32000);
  test_vocabulary(report, 128256);
}

void test_small_sampling(Report& report) {
  test_vocabulary(report, 1000);
  test_rows_without_a_token(report);
  test_adjustments(report);
}

}  // namespace inflight::gpu_test
