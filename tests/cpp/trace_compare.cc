#include "trace_compare.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "trace_engine.h"

namespace inflight::test {
namespace {

constexpr float kTolerance = 1e-4f;

template <class Values>
std::string text(const Values& values) {
  std::ostringstream out;
  out << "[";
  for (const auto& value : values) out << (&value == &*values.begin() ? "" : ", ") << value;
  out << "]";
  return out.str();
}

// Whether the values are equal up to kTolerance as far as both go.
bool are_close(const std::vector<float>& a, const std::vector<float>& b) {
  const size_t size = std::min(a.size(), b.size());
  return std::equal(a.begin(), a.begin() + size, b.begin(),
                    [](float x, float y) { return x == y || std::abs(x - y) <= kTolerance * (1 + std::abs(y)); });
}

bool is_prefix(const std::vector<int32_t>& prefix, const std::vector<int32_t>& tokens) {
  return prefix.size() <= tokens.size() && std::equal(prefix.begin(), prefix.end(), tokens.begin());
}

const char* name(FinishReason reason) {
  static const char* const kNames[] = {"none", "end id", "stop words", "length", "cancelled"};
  return kNames[static_cast<int>(reason)];
}

// Compares one request's outcome with what it gets alone.
class Comparison {
 public:
  Comparison(size_t index, const TraceRequest& traced, const RequestOutcome& outcome, std::vector<std::string>& faults)
      : index_(index), traced_(traced), outcome_(outcome), faults_(faults) {}

  void ended_once(const Trace& trace, const TraceResult& result) {
    for (const std::string& violation : std::set(outcome_.violations.begin(), outcome_.violations.end())) {
      fault(violation);
    }
    if (outcome_.num_finals != 1) fault("ended ", outcome_.num_finals, " times");
    if (!outcome_.error || is_expected(*outcome_.error, trace, result)) return;
    fault("failed: ", outcome_.error->what());
  }

  void is_as_alone(const TraceOptions& options, SoloRuns& solo_runs) {
    bool has_dead_end = false;
    for (size_t i = 0; i < outcome_.sequences.size(); ++i) {
      const RequestOutcome& alone = solo_runs.run(traced_, static_cast<int32_t>(i), options);
      if (alone.has_failed() && is_dead_end(*alone.error)) {
        const bool is_cut = outcome_.has_failed() || outcome_.sequences[i].finish_reason == FinishReason::kCancelled;
        if (!is_cut) fault("sequence ", i, ": its guide has no dead end, as it has alone");
        has_dead_end = true;
        continue;
      }
      if (alone.has_failed()) return fault("failed alone: ", alone.error->what());
      sequence_is(i, outcome_.sequences[i], alone.sequences.at(0));
    }
    if (outcome_.error && is_dead_end(*outcome_.error) && !has_dead_end) {
      fault("a dead end that no sequence has alone: ", outcome_.error->what());
    }
  }

 private:
  template <class... What>
  void fault(const What&... what) {
    faults_.push_back(concat("request ", index_, ": ", what...));
  }

  // What bad words, a bias or min_length leave of a guide may be nothing.
  bool is_dead_end(const Error& error) const {
    return error.code() == ErrorCode::kInvalidArgument && std::string(error.what()).starts_with("guided_decoding: ");
  }

  bool is_expected(const Error& error, const Trace& trace, const TraceResult& result) const {
    if (is_dead_end(error)) return true;
    if (error.code() == ErrorCode::kUnavailable) return traced_.deadline_ms || result.is_stopped;
    const bool injects = std::ranges::any_of(
        trace.events, [](const TraceEvent& event) { return std::holds_alternative<Fault>(event.action); });
    return injects && std::string(error.what()).find(kInjected) != std::string::npos;
  }

  void sequence_is(size_t i, const SequenceOutcome& got, const SequenceOutcome& alone) {
    const bool is_cut = outcome_.has_failed() || got.finish_reason == FinishReason::kCancelled;
    const bool same = is_cut ? is_prefix(got.tokens, alone.tokens) : got.tokens == alone.tokens;
    if (!same) return fault("sequence ", i, ": tokens ", text(got.tokens), ", alone ", text(alone.tokens));
    if (!is_cut && got.finish_reason != alone.finish_reason) {
      fault("sequence ", i, ": finish reason ", name(got.finish_reason), ", alone ", name(alone.finish_reason));
    }
    if (!are_close(got.log_probs, alone.log_probs)) {
      fault("sequence ", i, ": log-probs ", text(got.log_probs), ", alone ", text(alone.log_probs));
    }
    if (!is_cut && !are_close({got.cum_log_prob}, {alone.cum_log_prob})) {
      fault("sequence ", i, ": cum_log_prob ", got.cum_log_prob, ", alone ", alone.cum_log_prob);
    }
    if (!are_close(got.generation_logits, alone.generation_logits)) fault("sequence ", i, ": generation logits");
    logits_are(i, got, alone);
    if (!is_cut) beams_are(got.beams, alone.beams);
  }

  void logits_are(size_t i, const SequenceOutcome& got, const SequenceOutcome& alone) {
    if (!traced_.request.return_context_logits) return;
    if (!got.context_logits) {
      if (!got.tokens.empty()) fault("sequence ", i, ": no context logits");
    } else if (alone.context_logits && !are_close(*got.context_logits, *alone.context_logits)) {
      fault("sequence ", i, ": context logits");
    }
  }

  void beams_are(const std::vector<Beam>& got, const std::vector<Beam>& alone) {
    if (got.size() != alone.size()) return fault(got.size(), " beams, alone ", alone.size());
    for (size_t i = 0; i < got.size(); ++i) {
      if (got[i].tokens != alone[i].tokens) {
        fault("beam ", i, ": tokens ", text(got[i].tokens), ", alone ", text(alone[i].tokens));
      } else if (!are_close(got[i].log_probs, alone[i].log_probs) ||
                 !are_close({got[i].cum_log_prob}, {alone[i].cum_log_prob})) {
        fault("beam ", i, ": log-probs ", text(got[i].log_probs), ", alone ", text(alone[i].log_probs));
      } else if (got[i].finish_reason != alone[i].finish_reason) {
        fault("beam ", i, ": finish reason ", name(got[i].finish_reason), ", alone ", name(alone[i].finish_reason));
      }
    }
  }

  const size_t index_;
  const TraceRequest& traced_;
  const RequestOutcome& outcome_;
  std::vector<std::string>& faults_;
};

// The most steps that these tokens can take: a step computes one at least. Forks may compute a prompt again.
int64_t most_steps(const Request& request) {
  const int64_t width = std::max(request.num_return_sequences, request.beam_search.beam_width);
  return width * (static_cast<int64_t>(request.input_ids.size()) + request.max_new_tokens);
}

// None waits for ever: those that overtake a request are among the next kMaxOvertaking ones, so that it has ended when
// these, those before it, and it itself have been computed; with pauses, a few times.
void check_waiting(const Trace& trace, const TraceResult& result, std::vector<std::string>& faults) {
  constexpr size_t kMaxOvertaking = 100;
  constexpr int64_t kComputations = 4;
  const bool pauses = trace.options.manager.scheduler_policy == SchedulerPolicy::kMaxUtilization;
  const int64_t steps_per_request = trace.options.copy_delay + 2;  // beside those of its tokens
  const int64_t in_flight = trace.options.max_steps_in_flight;  // steps, of which one alone may be of this request
  int64_t work = 0;
  size_t num_before = 0;
  for (size_t i = 0; i < result.requests.size(); ++i) {
    for (; num_before < std::min(result.requests.size(), i + kMaxOvertaking + 1); ++num_before) {
      const int64_t steps = (pauses ? kComputations : 1) * most_steps(result.requests[num_before].request);
      work += in_flight * (steps + steps_per_request);
    }
    const Stay& stay = result.stays[i];
    if (stay.ended && *stay.ended - stay.submitted > work) {
      faults.push_back(concat("request ", i, " took ", *stay.ended - stay.submitted, " steps; ", work, " suffice"));
    }
  }
}

// A refusal is right when the queue is full, or when the KV cache cannot hold the request.
bool may_be_refused(const std::string& refusal, const TraceOptions& options) {
  if (refusal.find("queue is full") != std::string::npos) return options.manager.max_queue_size > 0;
  return refusal.find("KV cache") != std::string::npos && options.num_blocks > 0;
}

void check_rest(const Trace& trace, const TraceResult& result, std::vector<std::string>& faults) {
  if (result.is_stopped) return;
  const Statistics& statistics = result.statistics;
  const KvCacheStatistics& cache = statistics.kv_cache;
  const auto expect_zero = [&](const char* what, int64_t value) {
    if (value != 0) faults.push_back(concat("at rest: ", value, " ", what));
  };
  expect_zero("running sequences", statistics.running_sequences);
  expect_zero("queued sequences", statistics.queued_sequences);
  expect_zero("paused sequences", statistics.paused_sequences);
  expect_zero("blocks not given back", cache.total_blocks - cache.free_blocks);
  expect_zero("used blocks", cache.used_blocks);
  const bool reuses = trace.options.manager.enable_kv_cache_reuse;
  if (!reuses) {
    expect_zero("cached blocks without reuse", cache.cached_blocks);
    expect_zero("used host blocks without reuse", cache.used_host_blocks);
    expect_zero("evicted blocks without reuse", static_cast<int64_t>(cache.evicted_blocks));
  }
  if (cache.cached_blocks > cache.free_blocks) faults.push_back("at rest: more cached blocks than free ones");
  if (cache.used_host_blocks > cache.total_host_blocks)
    faults.push_back("at rest: more used host blocks than there are");
  if (cache.allocated_blocks != cache.new_blocks + cache.reused_blocks) {
    faults.push_back("at rest: allocated blocks are not new and reused ones");
  }
}

}  // namespace

std::vector<std::string> find_faults(const Trace& trace, const TraceResult& result, SoloRuns& solo_runs) {
  std::vector<std::string> faults = result.violations;
  for (size_t i = 0; i < result.requests.size(); ++i) {
    if (!result.refusals[i].empty()) {
      if (!result.is_stopped && !may_be_refused(result.refusals[i], trace.options)) {
        faults.push_back(concat("request ", i, " was refused: ", result.refusals[i]));
      }
      continue;
    }
    Comparison comparison(i, result.requests[i], result.outcomes[i], faults);
    comparison.ended_once(trace, result);
    comparison.is_as_alone(trace.options, solo_runs);
  }
  check_waiting(trace, result, faults);
  check_rest(trace, result, faults);
  return faults;
}

}  // namespace inflight::test
