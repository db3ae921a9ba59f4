#include "batch_manager/beam_search.h"

#include <limits>
#include <utility>
#include <vector>

#include "check.h"

using namespace inflight;

namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

using Tokens = std::vector<int32_t>;
using Row = std::vector<std::pair<int32_t, float>>;  // a running beam's candidates: token, log_prob

BeamSearchConfig config(int32_t beam_width, EarlyStopping early_stopping = EarlyStopping::kNo,
                        float length_penalty = 0.0f) {
  return {.beam_width = beam_width, .length_penalty = length_penalty, .early_stopping = early_stopping};
}

BeamSearch make_search(const BeamSearchConfig& config, int32_t max_new_tokens, std::vector<int32_t> end_ids,
                       const WordList& stop_words = {}) {
  auto words = std::make_shared<CompiledWords>();
  words->stop_words = StopWords(stop_words, {}, nullptr);
  const int32_t num_candidates = BeamSearch::num_candidates(config.beam_width, end_ids, stop_words);
  return {config, max_new_tokens, std::move(end_ids), num_candidates, std::move(words)};
}

// Advances with these candidates, and impossible ones to make up the number.
std::vector<BeamChoice> advance(BeamSearch& search, const std::vector<Row>& rows) {
  CHECK_EQ(static_cast<int32_t>(rows.size()), search.num_running());
  std::vector<SampledToken> candidates;
  for (const Row& row : rows) {
    for (int32_t i = 0; i < search.num_candidates(); ++i) {
      const auto [token, log_prob] = i < static_cast<int32_t>(row.size()) ? row[i] : std::pair(0, kNegativeInfinity);
      candidates.push_back({.slot = 0, .token = token, .log_prob = log_prob});
    }
  }
  const auto choices = search.advance(candidates);
  return {choices.begin(), choices.end()};
}

void check_choice(const BeamChoice& choice, int32_t parent, int32_t token) {
  CHECK_EQ(choice.parent, parent);
  CHECK_EQ(choice.token, token);
}

void check_beam(const Beam& beam, const Tokens& tokens, float cum_log_prob, FinishReason reason) {
  CHECK(beam.tokens == tokens);
  CHECK_EQ(beam.log_probs.size(), tokens.size());
  CHECK(std::abs(beam.cum_log_prob - cum_log_prob) < 1e-5f);
  CHECK(beam.finish_reason == reason);
}

Tokens generated(const BeamSearch& search, int32_t beam) {
  const auto tokens = search.generated(beam);
  return {tokens.begin(), tokens.end()};
}

}  // namespace

TEST(the_best_candidates_of_all_beams_go_on) {
  BeamSearch search = make_search(config(2), 10, {});
  CHECK_EQ(search.num_running(), 1);
  CHECK_EQ(search.num_candidates(), 4);

  auto choices = advance(search, {{{5, -1.0f}, {6, -2.0f}, {7, -3.0f}, {8, -4.0f}}});
  CHECK_EQ(choices.size(), 2u);
  check_choice(choices[0], 0, 5);
  check_choice(choices[1], 0, 6);

  choices = advance(search, {{{1, -3.0f}, {2, -4.0f}}, {{3, -0.5f}, {4, -0.7f}}});
  check_choice(choices[0], 1, 3);
  check_choice(choices[1], 1, 4);
  CHECK_EQ(choices[1].log_prob, -0.7f);
  CHECK(generated(search, 0) == (Tokens{6, 3}));
  CHECK(generated(search, 1) == (Tokens{6, 4}));
  CHECK(!search.is_finished());
}

TEST(an_end_id_finishes_a_beam_and_is_no_part_of_it) {
  BeamSearch search = make_search(config(2), 10, {9});
  advance(search, {{{5, -1.0f}, {6, -2.0f}}});
  const auto choices = advance(search, {{{9, -0.5f}, {1, -1.0f}}, {{2, -1.0f}, {3, -2.0f}}});
  check_choice(choices[0], 0, 1);
  check_choice(choices[1], 1, 2);
  CHECK_EQ(search.best(2).size(), 1u);
  check_beam(search.best(2)[0], {5}, -1.5f, FinishReason::kEndId);
  CHECK_EQ(search.best(2)[0].log_probs[0], -1.0f);
}

TEST(an_end_id_behind_the_best_candidates_is_dropped) {
  BeamSearch search = make_search(config(2), 10, {9});
  const auto choices = advance(search, {{{5, -1.0f}, {6, -2.0f}, {9, -2.1f}, {7, -2.2f}}});
  check_choice(choices[1], 0, 6);
  CHECK(search.best(2).empty());
}

TEST(beam_width_beams_go_on_whichever_end) {
  const WordList stop_words = {{1, 9}, {4}, {5, 4}};
  BeamSearch search = make_search(config(2, EarlyStopping::kNever, 1.0f), 10, {7, 8, 9}, stop_words);
  CHECK_EQ(search.num_candidates(), 2 + 4);  // 4, 7, 8, 9 can end a beam
  const auto choices = advance(search, {{{7, -1.0f}, {8, -1.1f}, {9, -1.2f}, {4, -1.3f}, {1, -1.4f}, {2, -1.5f}}});
  check_choice(choices[0], 0, 1);
  check_choice(choices[1], 0, 2);
  CHECK_EQ(search.best(2).size(), 2u);
}

TEST(the_length_of_a_score_counts_the_end_id) {
  BeamSearch search = make_search(config(2, EarlyStopping::kNever, 1.0f), 3, {9});
  advance(search, {{{9, -1.0f}, {5, -1.1f}, {6, -5.0f}}});              // -1 / 1
  advance(search, {{{9, -0.4f}, {1, -0.7f}}, {{2, -5.0f}, {3, -6.0f}}});  // -1.5 / 2
  advance(search, {{{9, -0.1f}, {1, -3.0f}}, {{2, -5.0f}, {3, -6.0f}}});  // -1.9 / 3
  CHECK(search.is_finished());
  const auto beams = search.best(5);
  CHECK_EQ(beams.size(), 2u);
  check_beam(beams[0], {5, 1}, -1.9f, FinishReason::kEndId);
  check_beam(beams[1], {5}, -1.5f, FinishReason::kEndId);
}

TEST(no_length_penalty_compares_sums) {
  BeamSearch search = make_search(config(2, EarlyStopping::kNever, 0.0f), 2, {9});
  advance(search, {{{9, -1.0f}, {5, -1.1f}, {6, -5.0f}}});
  advance(search, {{{9, -0.4f}, {1, -0.7f}}, {{2, -5.0f}, {3, -6.0f}}});
  check_beam(search.best(1)[0], {}, -1.0f, FinishReason::kEndId);
  check_beam(search.best(2)[1], {5}, -1.5f, FinishReason::kEndId);
}

// Whether a search goes on whose best running beam has -2.5 with 2 tokens, when beams have finished with -1 and
// worst_finished.
bool goes_on(EarlyStopping early_stopping, float length_penalty, float worst_finished) {
  BeamSearch search = make_search(config(2, early_stopping, length_penalty), 8, {8, 9});
  advance(search, {{{9, -1.0f}, {5, -1.5f}, {6, -1.6f}}});
  const float end = worst_finished + 1.5f;
  const auto choices = advance(search, {{{9, end}, {1, -1.0f}}, {{2, -4.0f}, {3, -5.0f}}});
  CHECK_EQ(search.best(2).size(), 2u);
  CHECK_EQ(choices.empty(), search.is_finished());
  CHECK_EQ(search.num_running(), search.is_finished() ? 0 : 2);
  return !search.is_finished();
}

TEST(early_stopping_says_when_running_beams_are_given_up) {
  CHECK(!goes_on(EarlyStopping::kYes, 0.0f, -2.6f));  // beam_width are finished
  CHECK(goes_on(EarlyStopping::kNo, 0.0f, -2.6f));    // -2.5 is better
  CHECK(!goes_on(EarlyStopping::kNo, 0.0f, -2.4f));
  CHECK(!goes_on(EarlyStopping::kNo, 1.0f, -2.4f));    // -2.5 / 2 < -2.4 / 2: the length so far counts
  CHECK(goes_on(EarlyStopping::kNever, 1.0f, -2.4f));  // -2.5 / 8 > -2.4 / 2: the longest counts
  CHECK(!goes_on(EarlyStopping::kNever, 0.0f, -2.4f));
}

TEST(the_best_beams_of_the_last_step_are_finished) {
  BeamSearch search = make_search(config(2), 2, {9});
  advance(search, {{{5, -1.0f}, {6, -2.0f}}});
  const auto choices = advance(search, {{{1, -1.0f}, {9, -1.5f}}, {{2, -2.0f}, {3, -3.0f}}});
  CHECK(choices.empty());
  CHECK(search.is_finished());
  const auto beams = search.best(2);
  check_beam(beams[0], {5, 1}, -2.0f, FinishReason::kLength);
  check_beam(beams[1], {5}, -2.5f, FinishReason::kEndId);
}

TEST(only_the_best_finished_beams_are_kept) {
  BeamSearch search = make_search(config(2, EarlyStopping::kNever), 10, {8, 9});
  advance(search, {{{8, -1.0f}, {9, -3.0f}, {5, -3.1f}, {6, -3.2f}}});
  CHECK(search.is_finished());
  BeamSearch longer = make_search(config(2, EarlyStopping::kNever, 1.0f), 10, {8, 9});
  advance(longer, {{{8, -1.0f}, {9, -3.0f}, {5, -3.1f}, {6, -3.2f}}});
  advance(longer, {{{9, -0.1f}, {1, -0.2f}}, {{2, -1.0f}, {3, -1.0f}}});
  const auto beams = longer.best(2);
  CHECK_EQ(beams.size(), 2u);
  check_beam(beams[0], {}, -1.0f, FinishReason::kEndId);
  check_beam(beams[1], {5}, -3.2f, FinishReason::kEndId);
}

TEST(a_stop_word_finishes_a_beam_and_remains_part_of_it) {
  BeamSearch search = make_search(config(2), 10, {9}, {{5, 3}, {4, 4, 4}});
  advance(search, {{{5, -1.0f}, {6, -2.0f}}});
  const auto choices = advance(search, {{{3, -0.5f}, {1, -1.0f}}, {{3, -0.5f}, {4, -3.0f}}});
  check_choice(choices[0], 0, 1);
  check_choice(choices[1], 1, 3);  // after 6, 3 completes nothing
  check_beam(search.best(1)[0], {5, 3}, -1.5f, FinishReason::kStopWords);
}

TEST(diversity_lowers_the_ranks_of_siblings_but_no_log_prob) {
  const Row first = {{5, -1.0f}, {6, -1.2f}};
  const std::vector<Row> second = {{{1, -0.5f}, {2, -0.6f}}, {{3, -0.7f}, {4, -0.8f}}};
  BeamSearch search = make_search(config(2), 10, {});
  advance(search, {first});
  check_choice(advance(search, second)[1], 0, 2);

  BeamSearch diverse = make_search({.beam_width = 2, .diversity_rate = 0.5f}, 2, {});
  advance(diverse, {first});
  CHECK(generated(diverse, 1) == Tokens{6});
  advance(diverse, second);
  check_beam(diverse.best(2)[0], {5, 1}, -1.5f, FinishReason::kLength);
  check_beam(diverse.best(2)[1], {6, 3}, -1.9f, FinishReason::kLength);
}

TEST(impossible_candidates_make_no_beams) {
  BeamSearch search = make_search(config(3), 10, {9});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_EQ(advance(search, {{{5, -1.0f}, {6, -2.0f}, {7, nan}, {9, kNegativeInfinity}}}).size(), 2u);
  CHECK_EQ(search.num_running(), 2);
  CHECK_EQ(advance(search, {{{1, -1.0f}, {2, -1.1f}, {3, -1.2f}, {4, -1.3f}}, {}}).size(), 3u);
  CHECK(search.best(3).empty());
}

TEST(without_any_candidate_the_running_beams_are_what_there_is) {
  BeamSearch search = make_search(config(2), 10, {9});
  advance(search, {{{5, -1.0f}, {6, -2.0f}}});
  CHECK(advance(search, {{}, {}}).empty());
  CHECK(search.is_finished());
  check_beam(search.best(2)[0], {5}, -1.0f, FinishReason::kLength);
  check_beam(search.best(2)[1], {6}, -2.0f, FinishReason::kLength);
}

TEST(a_search_whose_only_candidates_end_is_finished) {
  BeamSearch search = make_search(config(2), 10, {9});
  CHECK(advance(search, {{{9, -1.0f}}}).empty());
  CHECK(search.is_finished());
  CHECK_EQ(search.best(2).size(), 1u);
}

TEST(ties_go_to_the_lower_beam_and_to_the_engines_order) {
  BeamSearch search = make_search(config(2), 3, {});
  auto choices = advance(search, {{{7, -1.0f}, {3, -1.0f}, {5, -1.0f}, {1, -1.0f}}});
  check_choice(choices[0], 0, 7);
  check_choice(choices[1], 0, 3);
  choices = advance(search, {{{4, -1.0f}, {2, -1.0f}}, {{8, -1.0f}, {6, -1.0f}}});
  check_choice(choices[0], 0, 4);
  check_choice(choices[1], 0, 2);
  advance(search, {{{1, -1.0f}, {2, -1.0f}}, {{8, -1.0f}, {6, -1.0f}}});
  CHECK(search.best(2)[0].tokens == (Tokens{7, 4, 1}));
  CHECK(search.best(2)[1].tokens == (Tokens{7, 4, 2}));
}

TEST(a_cancelled_search_returns_finished_beams_before_running_ones) {
  BeamSearch search = make_search(config(3), 10, {9});
  advance(search, {{{5, -1.0f}, {9, -2.0f}, {6, -2.5f}, {7, -3.0f}}});
  search.cancel();
  CHECK(search.is_finished());
  CHECK_EQ(search.num_running(), 0);
  const auto beams = search.best(3);
  CHECK_EQ(beams.size(), 3u);
  check_beam(beams[0], {}, -2.0f, FinishReason::kEndId);
  check_beam(beams[1], {5}, -1.0f, FinishReason::kCancelled);
  check_beam(beams[2], {6}, -2.5f, FinishReason::kCancelled);
}

TEST(a_search_cancelled_before_its_first_step_returns_an_empty_beam) {
  BeamSearch search = make_search(config(2), 10, {9});
  search.cancel();
  CHECK_EQ(search.best(2).size(), 1u);
  check_beam(search.best(2)[0], {}, 0.0f, FinishReason::kCancelled);
}

TEST(a_finished_search_cannot_be_cancelled) {
  BeamSearch search = make_search(config(2), 1, {});
  advance(search, {{{5, -1.0f}, {6, -2.0f}}});
  search.cancel();
  check_beam(search.best(2)[1], {6}, -2.0f, FinishReason::kLength);
}

TEST_MAIN()
