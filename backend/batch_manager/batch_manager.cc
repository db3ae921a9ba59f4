#include "batch_manager/batch_manager.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "batch_manager/delivery.h"
#include "batch_manager/draft_model.h"
#include "batch_manager/request_check.h"
#include "batch_manager/scheduler.h"
#include "batch_manager/sequence.h"
#include "batch_manager/step_launcher.h"
#include "batch_manager/step_results.h"
#include "batch_manager/words/word_compiler.h"
#include "common/logging.h"
#include "common/rounding.h"

namespace inflight {

namespace {

using Clock = RequestState::Clock;
using std::chrono::microseconds;

// A request may be overtaken by as many later ones as this, times the difference of their priorities.
constexpr double kMaxOvertaking = 100.0;
// Prompt lookup keeps a table for each length.
constexpr int32_t kMaxNgram = 64;
// How often the loop looks at requests of which none can run yet.
constexpr std::chrono::milliseconds kIdlePeriod{5};
// Of the requests in the queue, so many are asked before each step whether they are cancelled.
constexpr int kAskedPerStep = 16;
// One after another, until the draft model is given up.
constexpr int kMaxDraftFailures = 10;

microseconds between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration_cast<microseconds>(end - begin);
}

RequestTimes times_of(const RequestState& state, Clock::time_point now, FinishReason last) {
  RequestTimes times;
  times.id = state.id;
  times.queue = between(state.submitted, state.first_step.value_or(now));
  if (state.first_token) {
    times.time_to_first_token = between(state.submitted, *state.first_token);
    const int32_t width = std::max(state.num_sequences(), state.request.beam_search.beam_width);
    const int32_t following = divide_up(state.num_generated, width) - 1;  // the first of all beams is one token
    if (following > 0) times.inter_token_latency = between(*state.first_token, state.last_token) / following;
  }
  times.total = between(state.submitted, now);
  times.prompt_tokens = static_cast<int32_t>(state.request.input_ids.size());
  times.generated_tokens = state.num_generated;
  times.finish_reason = last;
  times.failed = state.error.has_value();
  return times;
}

bool has_unsent(const Sequence& sequence) {
  const bool is_beam_search = sequence.is_beam_search();
  return (is_beam_search ? sequence.beam_search->num_generated() : sequence.num_sendable()) > sequence.num_sent;
}

// What no response of the sequence holds yet; of a beam search, all of its beams.
Response unsent(Sequence& sequence) {
  Response response;
  const Request& request = sequence.request;
  if (sequence.num_sent == 0 && request.return_context_logits) response.context_logits = sequence.state->context_logits;
  if (sequence.is_beam_search()) {
    BeamSearch& search = *sequence.beam_search;
    if (sequence.finish_reason == FinishReason::kCancelled) search.cancel();
    if (!sequence.state->error) {
      const int32_t count = request.num_return_sequences;
      response.beams = sequence.is_finished() ? search.best(count) : search.so_far(count);
    }
    sequence.num_sent = search.num_generated();
  } else {
    sequence.take_sendable(response);
    response.stop = sequence.stop;
  }
  response.logits_memory = sequence.state->logits_memory;
  response.kv_cache_alloc_total_blocks = sequence.num_blocks;
  response.kv_cache_reused_blocks = sequence.num_reused_blocks;
  response.kv_cache_alloc_new_blocks = sequence.num_blocks - sequence.num_reused_blocks;
  response.perf_metrics = sequence.perf_metrics;
  return response;
}

void check_options(const BatchManagerOptions& options, const EngineInfo& info) {
  if (info.max_num_tokens < info.max_batch_size) {
    throw_error(ErrorCode::kInvalidArgument, "the engine's max_num_tokens (", info.max_num_tokens,
                ") is below its max_batch_size (", info.max_batch_size,
                "): a step could not hold one token of each sequence; rebuild with a larger --max-num-tokens");
  }
  const auto& [max_draft_tokens, max_ngram] = options.prompt_lookup;
  if (max_draft_tokens < 0 || (max_draft_tokens > 0 && (max_ngram < 1 || max_ngram > kMaxNgram))) {
    throw_error(ErrorCode::kInvalidArgument, "prompt lookup has max_draft_tokens ", max_draft_tokens, " and max_ngram ",
                max_ngram, "; the first must be at least 0 (0: no drafts), the second 1 to ", kMaxNgram);
  }
  const auto& [max_words, max_words_length] = options.word_limits;
  if (max_words < 0 || max_words_length < 0) {
    throw_error(ErrorCode::kInvalidArgument, "max_words is ", max_words, " and max_words_length ", max_words_length,
                "; they must be at least 0 (0: no stop and bad words)");
  }
  if (options.draft_model.engine != nullptr && max_draft_tokens > 0) {
    throw_error(ErrorCode::kInvalidArgument, "there is a draft model, and prompt lookup has max_draft_tokens ",
                max_draft_tokens, "; drafts come from one of them: leave out the other");
  }
  if (options.draft_model.engine != nullptr && options.draft_model.num_draft_tokens < 1) {
    throw_error(ErrorCode::kInvalidArgument, "num_draft_tokens is ", options.draft_model.num_draft_tokens,
                "; with a draft model it must be at least 1");
  }
}

}  // namespace

struct BatchManager::Implementation {
  Implementation(std::unique_ptr<Engine> engine_in, const BatchManagerOptions& options_in)
      : options(options_in),
        engine(std::move(engine_in)),
        guided_decoder(make_guided_decoder(engine->info())),
        scheduler(engine->info(), options.scheduler_policy, options.enable_chunked_context,
                  options.enable_kv_cache_reuse),
        launcher(*engine, scheduler, guided_decoder.get()),
        results(engine->info(), scheduler, guided_decoder.get(), options.prompt_lookup),
        draft_model(options.draft_model.engine
                        ? std::make_unique<DraftModel>(options.draft_model.engine, engine->info())
                        : nullptr),
        delivery(options.max_responses_per_second) {
    check_options(options, engine->info());
    update_statistics();
    loop = std::thread([this] { run(); });
  }

  ~Implementation() {
    {
      std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_one();
    loop.join();
  }

  std::unique_ptr<GuidedDecoder> make_guided_decoder(const EngineInfo& info) {
    if (options.tokenizer_dir.empty()) return nullptr;
    return std::make_unique<GuidedDecoder>(options.tokenizer_dir, info.vocab_size, info.end_ids, info.max_batch_size,
                                           [this] { look_at_compiled(); });
  }

  void look_at_compiled() {
    {
      std::lock_guard lock(mutex);
      something_is_compiled = true;
    }
    wake.notify_one();
  }

  // --- the loop thread ---

  void run() {
    while (true) {
      try {
        if (!wait_for_work()) break;
        run_step();
      } catch (const Error& error) {
        if (error.code() == ErrorCode::kEngineLost) return lose_engine(error);
        log_error("the batch manager failed: ", error.what());
        fail_running(error);
      } catch (const std::exception& error) {  // such as std::bad_alloc: those who run must not wait for ever
        log_error("the batch manager failed: ", error.what());
        fail_running(Error(ErrorCode::kInternal, concat("the batch manager failed: ", error.what())));
      }
    }
    fail_all(Error(ErrorCode::kUnavailable, "the server is stopping"));
  }

  // Launches the next step; if there is none, or as many are in flight as may be, the oldest one is finished.
  void run_step() {
    end_cancelled();
    finish_sequences();
    const bool has_launched = launcher.has_room() && launch_step();
    is_idle = !has_launched && launcher.num_in_flight() == 0;
    if (launcher.num_in_flight() > 0 && (!has_launched || !launcher.has_room())) finish_step();
    update_statistics();
  }

  // False: nothing can run now.
  bool launch_step() {
    const auto begin = Clock::now();
    const auto* scheduled = schedule();
    if (scheduled == nullptr || !launcher.launch(*scheduled, begin)) return false;
    if (launcher.launched().empty()) return true;  // it failed
    update_statistics();  // who has started does not count as queued while the step runs
    note_first_steps(begin);
    describe(launcher.newest());
    return true;
  }

  void finish_step() {
    // What fails to be finished must not be waited for again: it is taken away first.
    StepInFlight& step = launcher.take_oldest();
    try {
      const StepOutput output = engine->finish();
      results.take(step, output, Clock::now());
      send_new_tokens();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kEngineLost) throw;
      results.fail(step, error);
    } catch (const std::exception& exception) {
      results.fail(step, Error(ErrorCode::kInternal, concat("the engine failed: ", exception.what())));
    }
    finish_sequences();
    const auto now = Clock::now();
    step.statistics.step = results.counts().steps;
    step.statistics.duration = between(std::max(step.begin, last_finish), now);
    last_finish = now;
    if (options.on_step) options.on_step(step.statistics);
  }

  bool has_something() const { return !scheduler.empty() || launcher.num_in_flight() > 0; }

  // Takes what was submitted. False when it is time to stop.
  bool wait_for_work() {
    std::unique_lock lock(mutex);
    const auto has_work = [this] { return stopping || !arrivals.empty() || (!is_idle && has_something()); };
    if (compiling.empty() && !has_something()) {
      wake.wait(lock, has_work);
    } else {
      wake.wait_for(lock, kIdlePeriod, [&] { return has_work() || something_is_compiled; });
      something_is_compiled = false;
    }
    for (; !arrivals.empty(); arrivals.pop_front()) {
      const auto& request = arrivals.front();
      if (is_compiled(*request)) {
        scheduler.add(request);
      } else {
        compiling.push_back(request);
      }
      num_arriving -= request->num_sequences();
    }
    cancelled.swap(cancelled_ids);
    add_compiled();
    statistics.queued_sequences = num_queued();
    return !stopping;
  }

  // Sequences.
  int32_t num_queued() const {
    int32_t queued = scheduler.num_queued();
    for (const auto& request : compiling) queued += request->num_sequences();
    return queued;
  }

  static bool is_compiled(const RequestState& request) {
    return request.words->is_ready() && (request.guide == nullptr || request.guide->is_ready());
  }

  // A request is scheduled once its words and its guide are compiled.
  void add_compiled() {
    std::erase_if(compiling, [this](std::shared_ptr<RequestState>& request) {
      if (!request->is_ended() && !is_compiled(*request)) return false;
      if (!request->is_ended()) {
        try {
          request->words->get();
          if (request->guide) request->guide->get();
        } catch (const Error& error) {
          request->error = error;
        }
      }
      scheduler.add(request);
      if (request->is_ended()) scheduler.remove_ended(*request);
      return true;
    });
  }

  void end_cancelled() {
    const auto now = Clock::now();
    scheduler.for_each([&](Sequence& sequence) { end_if_cancelled(*sequence.state, now, sequence.num_generated()); });
    scheduler.for_each_opened([&](RequestState& request) { end_if_cancelled(request, now, 0); });
    for (auto& request : compiling) end_if_cancelled(*request, now, 0);
    end_queued(now);
    cancelled.clear();
  }

  void end_queued(Clock::time_point now) {
    const auto look_at = [&](const std::shared_ptr<RequestState>& request) {
      if (end_if_cancelled(*request, now, 0)) scheduler.remove_ended(*request);
    };
    for (RequestQueue* queue : scheduler.queues()) {
      for (const RequestId id : cancelled) {
        if (const auto request = queue->find(id)) look_at(request);
      }
      while (const auto request = queue->overdue(now)) look_at(request);
      for (int i = 0; i < kAskedPerStep; ++i) {
        if (const auto request = queue->next_in_turn()) look_at(request);
      }
    }
  }

  // Whether it has ended.
  bool end_if_cancelled(RequestState& state, Clock::time_point now, int32_t num_generated) {
    const Request& request = state.request;
    if (cancelled.count(state.id) != 0 || (request.is_cancelled && request.is_cancelled())) {
      state.is_cancelled = true;
    } else if (request.deadline && now >= *request.deadline && !state.is_ended()) {
      state.error = Error(
          ErrorCode::kUnavailable,
          concat("the request timed out after ", between(state.submitted, now).count() / 1000, " ms, ", num_generated,
                 " of at most ", request.max_new_tokens, " tokens generated; allow it more time or ask for less"));
    }
    return state.is_ended();
  }

  // A draft model that fails costs its drafts, nothing else.
  void propose_drafts() {
    drafting.clear();
    scheduler.for_each_running([this](Sequence& sequence) {
      const bool takes_drafts = !sequence.is_beam_search() && !sequence.state->guide && !sequence.is_onboarding;
      const bool is_known = sequence.num_expected == 0;
      if (takes_drafts && is_known && !sequence.in_context_phase()) drafting.push_back(&sequence);
    });
    if (drafting.empty()) return;
    // What the step has room for beside one token of each.
    const int32_t room = engine->info().max_num_tokens / static_cast<int32_t>(drafting.size()) - 1;
    try {
      draft_model->propose(drafting, std::min(room, options.draft_model.num_draft_tokens));
      num_draft_failures = 0;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kEngineLost) throw;
      lose_drafts(error);
    } catch (const std::exception& error) {
      lose_drafts(error);
    }
  }

  void lose_drafts(const std::exception& error) {
    ++num_draft_failures;
    log_error("the draft model failed: ", error.what(),
              num_draft_failures < kMaxDraftFailures ? "" : "; it makes no more drafts");
    for (Sequence* sequence : drafting) sequence->drafts.clear();
  }

  // Who is in the next step, or null if nothing can run.
  const std::vector<ScheduledSequence>* schedule() {
    if (draft_model && num_draft_failures < kMaxDraftFailures) propose_drafts();
    launcher.look_at_copies();
    const auto* scheduled = &scheduler.schedule();
    if (scheduled->empty() && launcher.num_in_flight() == 0) scheduled = &scheduler.schedule(/*wait_for_host=*/true);
    return scheduled->empty() ? nullptr : scheduled;
  }

  void note_first_steps(Clock::time_point now) {
    for (Sequence* sequence : launcher.launched()) {
      PerfMetrics& perf_metrics = sequence->perf_metrics;
      if (perf_metrics.first_scheduled == PerfMetrics::TimePoint()) perf_metrics.first_scheduled = now;
      auto& first_step = sequence->state->first_step;
      if (first_step) continue;
      first_step = now;
      if (sequence->request.on_start) sequence->request.on_start();
    }
  }

  void send_new_tokens() {
    Delivery::Posting posting(delivery);
    for (Sequence* const its : results.sequences()) {
      Sequence& sequence = *its;
      if (!has_unsent(sequence) || !sequence.request.streaming || sequence.is_finished()) continue;
      try {
        posting.post(sequence.channel, unsent(sequence));
      } catch (const std::exception& failure) {
        sequence.state->error = Error(ErrorCode::kInternal, concat("a response cannot be made: ", failure.what()));
      }
    }
  }

  void describe(StepInFlight& step) {
    StepStatistics& in_step = step.statistics;
    in_step = {};
    in_step.running_sequences = scheduler.num_running();
    in_step.queued_sequences = num_queued();
    in_step.paused_sequences = scheduler.num_paused();
    for (const SequenceInFlight& in_flight : step.sequences) {
      const int32_t slices = in_flight.num_slices;
      in_step.scheduled_slices += slices;
      (in_flight.is_context ? in_step.context_slices : in_step.generation_slices) += slices;
      (in_flight.is_context ? in_step.context_tokens : in_step.generation_tokens) += slices * in_flight.num_tokens;
      in_step.generation_tokens += in_flight.num_drafts;
    }
    const KvCacheStatistics& kv_cache = scheduler.kv_cache().statistics();
    in_step.free_blocks = kv_cache.free_blocks;
    in_step.used_blocks = kv_cache.used_blocks;
  }

  // What failed may be anyone's fault who runs; if nobody does, that of the first who waits.
  void fail_running(const Error& error) {
    bool any_runs = false;
    scheduler.for_each_running([&](Sequence& sequence) {
      any_runs = true;
      sequence.state->error = error;
    });
    if (any_runs) return;
    if (const auto request = scheduler.first_waiting()) end_with(*request, error);
  }

  // Nothing can run any more: whoever is here, or comes, is told why.
  void lose_engine(const Error& error) {
    log_error("the engine is lost: ", error.what());
    {
      std::lock_guard lock(mutex);
      lost = error;
      for (auto& request : arrivals) compiling.push_back(std::move(request));
      arrivals.clear();
      num_arriving = 0;
    }
    fail_all(error);
    delivery.flush();
    if (options.on_engine_lost) options.on_engine_lost(error);
  }

  void fail_all(const Error& error) {
    for (auto& request : compiling) scheduler.add(std::move(request));
    compiling.clear();
    scheduler.for_each([&](Sequence& sequence) { sequence.state->error = error; });
    scheduler.for_each_opened([&](RequestState& request) { request.error = error; });
    for (RequestQueue* queue : scheduler.queues()) {
      while (!queue->empty()) end_with(*queue->first(), error);
    }
    finish_sequences();
  }

  void end_with(RequestState& request, const Error& error) {
    request.error = error;
    if (request.num_made == 0) scheduler.remove_ended(request);
  }

  void finish_sequences() {
    scheduler.collect_finished();
    auto& sequences = scheduler.finished();
    auto& requests = scheduler.ended();
    if (sequences.empty() && requests.empty()) return;
    // Who sees a final response finds the blocks free and the request gone in the statistics.
    update_statistics();
    for (auto& sequence : sequences) {
      if (sequence) end_sequence(*sequence);
      sequence.reset();
    }
    sequences.clear();
    for (const auto& request : requests) end_waiting_sequences(*request);
    requests.clear();
  }

  void end_sequence(Sequence& sequence) {
    RequestState& state = *sequence.state;
    if (sequence.finish_reason == FinishReason::kNone && state.is_cancelled) {
      sequence.finish_reason = FinishReason::kCancelled;
    }
    Response response = unsent(sequence);
    response.finish_reason = sequence.finish_reason;
    if (response.finish_reason == FinishReason::kLength && !response.beams.empty()) {
      response.finish_reason = response.beams.front().finish_reason;
    }
    post_last(state, sequence.channel, std::move(response), sequence.finish_reason);
  }

  // Those that were never made.
  void end_waiting_sequences(RequestState& state) {
    for (; state.num_made < state.num_sequences(); ++state.num_made) {
      Response response;
      response.perf_metrics.arrival = state.submitted;
      response.finish_reason = state.is_cancelled ? FinishReason::kCancelled : FinishReason::kNone;
      const auto reason = response.finish_reason;
      post_last(state, std::make_shared<ResponseChannel>(state.receiver, state.num_made), std::move(response), reason);
    }
  }

  void post_last(RequestState& state, const std::shared_ptr<ResponseChannel>& channel, Response response,
                 FinishReason reason) {
    response.is_sequence_final = true;
    response.error = state.error;
    if (--state.num_unfinished == 0 && options.on_request_end) {
      options.on_request_end(times_of(state, Clock::now(), reason));
    }
    delivery.post(channel, std::move(response));
  }

  void update_statistics() {
    const StepCounts& counts = results.counts();
    std::lock_guard lock(mutex);
    statistics.steps = counts.steps;
    statistics.running_sequences = scheduler.num_running();
    statistics.queued_sequences = num_queued();
    statistics.paused_sequences = scheduler.num_paused();
    statistics.max_sequences = engine->info().max_batch_size;
    statistics.kv_cache = scheduler.kv_cache().statistics();
    statistics.free_blocks = statistics.kv_cache.free_blocks;
    statistics.total_blocks = statistics.kv_cache.total_blocks;
    statistics.context_tokens = counts.context_tokens;
    statistics.generated_tokens = counts.generated_tokens;
    statistics.draft_tokens = counts.draft_tokens;
    statistics.accepted_draft_tokens = counts.accepted_draft_tokens;
    statistics.pauses = scheduler.num_pauses();
  }

  // --- the callers' threads ---

  RequestId submit(Request request, ResponseCallback callback) {
    const EngineInfo& info = engine->info();
    check_request(request, info, options, scheduler.kv_cache());
    complete(request, info);
    const int32_t num_sequences = request.num_sequences();
    RequestId id;
    {
      std::lock_guard lock(mutex);
      check_queue(num_sequences);  // before there is work that would be in vain
      id = next_id++;
    }
    const double rank = static_cast<double>(id) + (1.0 - request.priority) * kMaxOvertaking;
    auto receiver = std::make_shared<ResponseReceiver>(ResponseReceiver{id, std::move(callback), num_sequences});
    auto state = std::make_shared<RequestState>(id, std::move(request), rank, std::move(receiver));
    state->words = word_compiler.compile({state, &state->request});
    state->needs_tokens = needs_tokens(state->request);
    if (state->request.guided_decoding) state->guide = guided_decoder->compile(*state->request.guided_decoding);
    {
      std::lock_guard lock(mutex);
      check_queue(num_sequences);
      arrivals.push_back(std::move(state));
      num_arriving += num_sequences;
    }
    wake.notify_one();
    return id;
  }

  bool needs_tokens(const Request& request) const {
    const bool makes_drafts = draft_model != nullptr || options.prompt_lookup.max_draft_tokens > 0;
    return request.beam_search.beam_width > 1 || request.guided_decoding ||
           (makes_drafts && request.num_draft_tokens.value_or(1) > 0);
  }

  // With the mutex held. Sequences that a free slot takes at once need no place in the queue, but one of them.
  void check_queue(int32_t num_sequences) const {
    if (stopping) throw_error(ErrorCode::kUnavailable, "the server is stopping");
    if (lost) throw *lost;
    if (options.max_queue_size <= 0) return;
    const int32_t free_slots = statistics.max_sequences - statistics.running_sequences;
    const int32_t num_queued = num_arriving + statistics.queued_sequences;
    if (num_queued + std::max(num_sequences - free_slots, 1) > options.max_queue_size) {
      throw_error(ErrorCode::kUnavailable, "the queue is full: ", num_queued, " sequences wait, max_queue_size is ",
                  options.max_queue_size, "; try again later");
    }
  }

  // What is left to the engine and to others that know it.
  static void complete(Request& request, const EngineInfo& info) {
    auto& end_ids = request.sampling.end_ids;
    if (end_ids.empty()) end_ids = info.end_ids;
    if (!request.guided_decoding) return;
    for (const int32_t id : info.end_ids) {  // ends a complete text, whatever else does
      if (std::find(end_ids.begin(), end_ids.end(), id) == end_ids.end()) end_ids.push_back(id);
    }
  }

  void cancel(RequestId id) {
    std::lock_guard lock(mutex);
    if (id < next_id) cancelled_ids.insert(id);
  }

  const BatchManagerOptions options;
  const std::unique_ptr<Engine> engine;

  // Shared between the callers and the loop.
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  std::optional<Error> lost;  // the engine
  bool something_is_compiled = false;  // since the loop last looked
  RequestId next_id = 1;
  std::deque<std::shared_ptr<RequestState>> arrivals;
  int32_t num_arriving = 0;  // their sequences
  std::unordered_set<RequestId> cancelled_ids;
  Statistics statistics{};
  const std::unique_ptr<GuidedDecoder> guided_decoder;      // wakes the loop
  WordCompiler word_compiler{options.tokenizer_dir, [this] { look_at_compiled(); }};  // likewise

  // The loop's own.
  Scheduler scheduler;
  StepLauncher launcher;
  StepResults results;
  Clock::time_point last_finish;
  const std::unique_ptr<DraftModel> draft_model;  // may be null
  std::vector<Sequence*> drafting;                // sequences that it makes drafts for
  int num_draft_failures = 0;                     // since it last made some
  bool is_idle = false;  // nothing of what waits could run
  std::vector<std::shared_ptr<RequestState>> compiling;  // their words or guides are
  std::unordered_set<RequestId> cancelled;

  Delivery delivery;
  std::thread loop;  // last: it uses all of the above
};

BatchManager::BatchManager(std::unique_ptr<Engine> engine, const BatchManagerOptions& options)
    : implementation_(std::make_unique<Implementation>(std::move(engine), options)) {}

BatchManager::~BatchManager() = default;

const EngineInfo& BatchManager::engine_info() const { return implementation_->engine->info(); }

RequestId BatchManager::submit(Request request, ResponseCallback callback) {
  return implementation_->submit(std::move(request), std::move(callback));
}

void BatchManager::cancel(RequestId id) { implementation_->cancel(id); }

Statistics BatchManager::statistics() const {
  std::lock_guard lock(implementation_->mutex);
  return implementation_->statistics;
}

}  // namespace inflight
