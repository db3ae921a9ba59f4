#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "batch_manager/request.h"
#include "batch_manager/words/compiled_words.h"
#include "engine/engine.h"

namespace inflight {

// A running beam: one of those before, and one token more.
struct BeamChoice {
  int32_t parent;  // index of the running beam before
  int32_t token;
  float log_prob;  // of the token
};

// Beam search of one request, on the host alone: which beams go on, which are finished, when to stop. Tokens, scores
// and order are those of transformers' GenerationMixin._beam_search (v5, do_sample=False):
//
// - A beam that comes to an end id, to a stop word or to max_new_tokens is finished if it is among the beam_width best
//   candidates of its step, and dropped otherwise. The beam_width best others are the next running beams.
// - A finished beam's score is cum_log_prob / length^length_penalty, where the length counts the generated tokens with
//   the end id. The beam_width best finished beams are kept.
//
// What transformers does not have: a stop word ends a beam as an end id does, but remains part of its tokens; and
// diversity_rate > 0 lowers a candidate's score by diversity_rate times its rank among the candidates of the same beam
// (0 for the best) for the choice of its step alone, not in cum_log_prob (arXiv:1611.08562, section 3).
//
// Equal scores: the lower beam comes first, then the candidate that the engine puts first; of finished beams, the one
// that finished first.
class BeamSearch {
 public:
  // end_ids may be empty. num_candidates: see below.
  BeamSearch(const BeamSearchConfig& config, int32_t max_new_tokens, std::vector<int32_t> end_ids,
             int32_t num_candidates, std::shared_ptr<const CompiledWords> words);

  // What each running beam must return in a step: 2 * beam_width, or more where more tokens than beam_width can end a
  // beam, so that beam_width beams can go on whichever end. (Almost any token can end a stop text: where more than
  // beam_width do, fewer beams may go on.)
  static int32_t num_candidates(int32_t beam_width, const std::vector<int32_t>& end_ids, const WordList& stop_words);
  int32_t num_candidates() const { return num_candidates_; }

  // 1 before the first advance(), then beam_width, or fewer where masks allow fewer tokens; 0 when finished.
  int32_t num_running() const { return static_cast<int32_t>(running_.size()); }

  // candidates: [num_running, num_candidates], best first, of the running beams in order. Those with a log_prob of -inf
  // or NaN are no candidates; should there be no other, the search ends with the running beams as they are. Returns the
  // next running beams, best first, valid until the next call; empty when the search is finished.
  std::span<const BeamChoice> advance(std::span<const SampledToken> candidates);

  bool is_finished() const { return is_finished_; }

  int32_t num_generated() const { return num_generated_; }  // tokens of every running beam

  // Finishes with what there is: running beams count as finished, after the finished ones, with kCancelled.
  void cancel();

  // A running beam's tokens, valid until the next call of advance().
  std::span<const int32_t> generated(int32_t beam) const { return running_[beam].tokens; }

  // The `count` best finished beams, best first; fewer if there are no more. Before is_finished(), those so far.
  std::vector<Beam> best(int32_t count) const;
  // The same while the search runs, filled up with the running beams: what a stream shows of it.
  std::vector<Beam> so_far(int32_t count) const;

 private:
  struct RunningBeam {
    std::vector<int32_t> tokens;
    std::vector<float> log_probs;
    float cum_log_prob = 0.0f;
    StopProgress stop_progress;
  };
  struct Candidate {
    float score;  // by which a step chooses
    float cum_log_prob;
    int32_t sibling;  // rank among the candidates of the same beam, 0 for the best
    BeamChoice choice;
    bool operator<(const Candidate& other) const {  // the best comes first
      return std::tuple(-score, choice.parent, sibling) < std::tuple(-other.score, other.choice.parent, other.sibling);
    }
  };
  struct FinishedBeam {
    float score;
    Beam beam;
  };

  void rank(std::span<const SampledToken> candidates);
  FinishReason finish_reason(const BeamChoice& choice) const;
  std::optional<StopMatch> stop_match(const BeamChoice& choice) const;
  bool is_end_id(int32_t token) const;
  void finish(const Candidate& candidate, FinishReason reason);
  void finish_running(FinishReason reason);
  bool can_improve() const;
  void follow_choices();
  void end();
  int32_t num_going_on() const { return static_cast<int32_t>(going_on_.size()); }
  float length_normalized(float cum_log_prob, int32_t length) const;

  const BeamSearchConfig config_;
  const int32_t max_new_tokens_;
  const std::vector<int32_t> end_ids_;
  const std::shared_ptr<const CompiledWords> words_;
  const int32_t num_candidates_;

  int32_t num_generated_ = 0;
  bool is_finished_ = false;
  std::vector<RunningBeam> running_;
  std::vector<RunningBeam> previous_;  // the running beams of the step before, kept for their memory
  std::vector<Candidate> ranked_;  // of the present step, best first
  std::vector<Candidate> going_on_;  // of those, the next running beams
  std::vector<BeamChoice> choices_;  // the same, as advance() returns them
  std::vector<FinishedBeam> finished_;  // best first, at most beam_width
};

}  // namespace inflight
