#include "batch_manager/beam_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>
#include <utility>

namespace inflight {
namespace {

int32_t count_ending_tokens(const std::vector<int32_t>& end_ids, const WordList& stop_words) {
  std::unordered_set<int32_t> tokens(end_ids.begin(), end_ids.end());
  for (size_t i = 0; i < stop_words.size(); ++i) tokens.insert(stop_words[i].back());
  return static_cast<int32_t>(tokens.size());
}

}  // namespace

BeamSearch::BeamSearch(const BeamSearchConfig& config, int32_t max_new_tokens, std::vector<int32_t> end_ids,
                       int32_t num_candidates, std::shared_ptr<const CompiledWords> words)
    : config_(config),
      max_new_tokens_(max_new_tokens),
      end_ids_(std::move(end_ids)),
      words_(std::move(words)),
      num_candidates_(num_candidates),
      running_(1) {}

int32_t BeamSearch::num_candidates(int32_t beam_width, const std::vector<int32_t>& end_ids,
                                   const WordList& stop_words) {
  return beam_width + std::max(beam_width, count_ending_tokens(end_ids, stop_words));
}

std::span<const BeamChoice> BeamSearch::advance(std::span<const SampledToken> candidates) {
  rank(candidates);
  ++num_generated_;
  going_on_.clear();
  for (size_t i = 0; i < ranked_.size() && num_going_on() < config_.beam_width; ++i) {
    const FinishReason reason = finish_reason(ranked_[i].choice);
    if (reason == FinishReason::kNone) {
      going_on_.push_back(ranked_[i]);
    } else if (i < static_cast<size_t>(config_.beam_width)) {
      finish(ranked_[i], reason);
    }
  }
  if (ranked_.empty()) finish_running(FinishReason::kLength);
  if (can_improve()) {
    follow_choices();
  } else {
    end();
  }
  return choices_;
}

void BeamSearch::cancel() {
  if (is_finished_) return;
  finish_running(FinishReason::kCancelled);
  end();
}

std::vector<Beam> BeamSearch::best(int32_t count) const {
  std::vector<Beam> beams;
  for (const FinishedBeam& finished : finished_) {
    if (static_cast<int32_t>(beams.size()) == count) break;
    beams.push_back(finished.beam);
  }
  return beams;
}

std::vector<Beam> BeamSearch::so_far(int32_t count) const {
  std::vector<Beam> beams = best(count);
  for (const RunningBeam& beam : running_) {
    if (static_cast<int32_t>(beams.size()) == count) break;
    beams.push_back({beam.tokens, beam.log_probs, beam.cum_log_prob, FinishReason::kNone, {}});
  }
  return beams;
}

// Fills ranked_ with all candidates, best first.
void BeamSearch::rank(std::span<const SampledToken> candidates) {
  ranked_.clear();
  for (int32_t parent = 0; parent < num_running(); ++parent) {
    for (int32_t sibling = 0; sibling < num_candidates_; ++sibling) {
      const SampledToken& sampled = candidates[static_cast<size_t>(parent) * num_candidates_ + sibling];
      if (!(sampled.log_prob > -std::numeric_limits<float>::infinity())) continue;
      const float cum_log_prob = running_[parent].cum_log_prob + sampled.log_prob;
      ranked_.push_back({.score = cum_log_prob - config_.diversity_rate * static_cast<float>(sibling),
                         .cum_log_prob = cum_log_prob,
                         .sibling = sibling,
                         .choice = {.parent = parent, .token = sampled.token, .log_prob = sampled.log_prob}});
    }
  }
  std::sort(ranked_.begin(), ranked_.end());
}

FinishReason BeamSearch::finish_reason(const BeamChoice& choice) const {
  if (is_end_id(choice.token)) return FinishReason::kEndId;
  if (stop_match(choice)) return FinishReason::kStopWords;
  return num_generated_ == max_new_tokens_ ? FinishReason::kLength : FinishReason::kNone;
}

bool BeamSearch::is_end_id(int32_t token) const { return std::ranges::find(end_ids_, token) != end_ids_.end(); }

std::optional<StopMatch> BeamSearch::stop_match(const BeamChoice& choice) const {
  StopProgress progress = running_[choice.parent].stop_progress;
  return words_->stop_words.advance(progress, choice.token);
}

// Keeps the candidate among the finished beams if it is one of the best.
void BeamSearch::finish(const Candidate& candidate, FinishReason reason) {
  const float score = length_normalized(candidate.cum_log_prob, num_generated_);
  const auto worse = std::ranges::upper_bound(finished_, score, std::greater{}, &FinishedBeam::score);
  const bool is_full = static_cast<int32_t>(finished_.size()) == config_.beam_width;
  if (is_full && worse == finished_.end()) return;
  const RunningBeam& parent = running_[candidate.choice.parent];
  Beam beam{parent.tokens, parent.log_probs, candidate.cum_log_prob, reason, {}};
  if (reason == FinishReason::kStopWords) beam.stop = *stop_match(candidate.choice);
  if (reason != FinishReason::kEndId) {
    beam.tokens.push_back(candidate.choice.token);
    beam.log_probs.push_back(candidate.choice.log_prob);
  }
  finished_.insert(worse, {score, std::move(beam)});
  if (is_full) finished_.pop_back();
}

// Puts the running beams behind the finished ones.
void BeamSearch::finish_running(FinishReason reason) {
  for (const RunningBeam& beam : running_) {
    if (static_cast<int32_t>(finished_.size()) == config_.beam_width) return;
    finished_.push_back({beam.cum_log_prob, {beam.tokens, beam.log_probs, beam.cum_log_prob, reason, {}}});
  }
}

// Whether the search goes on: a beam that goes on may become one of the beam_width best.
bool BeamSearch::can_improve() const {
  if (going_on_.empty()) return false;
  if (static_cast<int32_t>(finished_.size()) < config_.beam_width) return true;
  if (config_.early_stopping == EarlyStopping::kYes) return false;
  const bool longer_is_better = config_.early_stopping == EarlyStopping::kNever && config_.length_penalty > 0.0f;
  const int32_t length = longer_is_better ? max_new_tokens_ : num_generated_;
  const float highest = std::ranges::max_element(going_on_, {}, &Candidate::cum_log_prob)->cum_log_prob;
  return length_normalized(highest, length) > finished_.back().score;
}

// Makes the candidates that go on the running beams.
void BeamSearch::follow_choices() {
  choices_.clear();
  running_.swap(previous_);
  running_.resize(going_on_.size());
  for (size_t i = 0; i < going_on_.size(); ++i) {
    const BeamChoice& choice = choices_.emplace_back(going_on_[i].choice);
    const RunningBeam& parent = previous_[choice.parent];
    RunningBeam& beam = running_[i];
    beam.tokens = parent.tokens;
    beam.tokens.push_back(choice.token);
    beam.log_probs = parent.log_probs;
    beam.log_probs.push_back(choice.log_prob);
    beam.cum_log_prob = going_on_[i].cum_log_prob;
    beam.stop_progress = parent.stop_progress;
    words_->stop_words.advance(beam.stop_progress, choice.token);
  }
}

void BeamSearch::end() {
  is_finished_ = true;
  choices_.clear();
  running_.clear();
}

float BeamSearch::length_normalized(float cum_log_prob, int32_t length) const {
  return cum_log_prob / static_cast<float>(std::pow(static_cast<double>(length), config_.length_penalty));
}

}  // namespace inflight
