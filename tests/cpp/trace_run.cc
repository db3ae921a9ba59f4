#include "trace_run.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "delayed_engine.h"
#include "tiny_model.h"
#include "trace_engine.h"

namespace inflight::test {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kStepsPerToken = 30;  // more than pauses ever make of it
constexpr int32_t kAmpleBlocks = 512;
constexpr std::chrono::microseconds kResultDelay{50};

// So few tokens that prompts, stop words and n-grams often meet.
EngineConfig trace_config(int32_t tokens_per_block) {
  EngineConfig config{};
  config.model.model_type = "llama";
  config.model.vocab_size = 20;
  config.model.hidden_size = 16;
  config.model.num_hidden_layers = 2;
  config.model.num_attention_heads = 4;
  config.model.num_key_value_heads = 2;
  config.model.head_size = 4;
  config.model.intermediate_size = 24;
  config.model.max_position_embeddings = 96;
  config.model.norm_epsilon = 1e-5f;
  config.model.layer_windows = {0, 0};
  config.model.end_ids = {0};
  config.build.device = "cpu";
  config.build.max_batch_size = 8;
  config.build.max_num_tokens = 96;
  config.build.max_seq_len = 96;
  config.build.tokens_per_block = tokens_per_block;
  config.build.kv_cache_bytes = 1 << 20;
  config.build.logits_bytes = 400 * config.model.vocab_size * 4;  // of one request, or a few
  config.build.max_beam_width = 4;
  return config;
}

std::unique_ptr<TraceEngine> make_engine(TraceModel& model, const TraceOptions& options) {
  EngineOptions engine_options = options.engine;
  engine_options.num_threads = 1;
  const int32_t num_blocks = options.num_blocks > 0 ? options.num_blocks : kAmpleBlocks;
  engine_options.max_tokens_in_kv_cache = int64_t{num_blocks} * options.tokens_per_block;
  const std::filesystem::path& directory = model.engine(options.tokens_per_block);
  if (options.num_host_blocks > 0) {
    static const int64_t bytes_per_token = load_engine(model.engine(1), {.num_threads = 1})->info().kv_bytes_per_block;
    engine_options.kv_cache_host_bytes = options.num_host_blocks * options.tokens_per_block * bytes_per_token;
  }
  std::unique_ptr<Engine> engine = load_engine(directory, engine_options);
  if (options.max_steps_in_flight > 1) {
    engine = std::make_unique<DelayedEngine>(std::move(engine), options.max_steps_in_flight, kResultDelay);
  }
  return std::make_unique<TraceEngine>(std::move(engine), options);
}

class TraceRun {
 public:
  TraceRun(const Trace& trace, TraceModel& model, SoloRuns& solo_runs)
      : trace_(trace), model_(model), solo_runs_(solo_runs) {
    std::unique_ptr<TraceEngine> engine = make_engine(model, trace.options);
    engine_ = engine.get();
    engine_->before_step = [this] { before_step(); };
    engine_->on_violation = [this](const std::string& what) { violate(what); };
    vocab_size_ = engine->info().vocab_size;
    BatchManagerOptions options = trace.options.manager;
    options.tokenizer_dir = model.tokenizer_dir;
    options.on_request_end = [this](const RequestTimes& times) { note_end(times); };
    options.on_step = [this](const StepStatistics& step) { check_statistics(step); };
    const EngineInfo info = engine->info();
    limits_ = {info.max_batch_size, info.max_num_tokens, info.num_blocks};
    for (const TraceEvent& event : trace.events) {
      if (std::holds_alternative<TraceRequest>(event.action)) ++num_submissions_;
    }
    result_.requests.reserve(num_submissions_);
    result_.outcomes.reserve(num_submissions_);
    owner_ = std::make_unique<BatchManager>(std::move(engine), options);
    manager_ = owner_.get();
  }

  TraceResult run() {
    {
      std::unique_lock lock(mutex_);
      const auto deadline = Clock::now() + model_.patience;
      while (!stop_asked_ && !(all_ended() && next_event_ == trace_.events.size())) {
        if (all_ended()) {
          run_next_event();  // nothing runs any more: the rest of this moment's happens with the next step
        } else if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
          hang();
        }
      }
      result_.is_stopped = stop_asked_;
      if (!stop_asked_) result_.statistics = manager_->statistics();
    }
    stop();
    add_stays();
    result_.violations = std::move(violations_);
    return std::move(result_);
  }

 private:
  bool all_ended() const { return num_ended_ == num_accepted_; }

  // From the loop's thread, while a step is being launched.
  void before_step() {
    std::lock_guard lock(mutex_);
    const int64_t step = engine_->steps;
    result_.steps = step;
    while (!stop_asked_ && next_event_ < trace_.events.size() && trace_.events[next_event_].at <= step) {
      run_next_event();
    }
    if (step == max_steps_) violations_.push_back(concat("not at its end after ", step, " steps"));
    if (step >= max_steps_) engine_->fails_launch = true;
  }

  void run_next_event() {
    const TraceEvent& event = trace_.events[next_event_++];
    if (const auto* request = std::get_if<TraceRequest>(&event.action)) {
      submit(*request);
    } else if (const auto* cancel = std::get_if<Cancel>(&event.action)) {
      if (cancel->request < ids_.size()) manager_->cancel(ids_[cancel->request]);
    } else if (const auto* fault = std::get_if<Fault>(&event.action)) {
      (fault->in_launch ? engine_->fails_launch : engine_->fails_finish) = true;
    } else {
      stop_asked_ = true;
      changed_.notify_one();
    }
  }

  void submit(const TraceRequest& traced) {
    const size_t index = result_.requests.size();
    result_.requests.push_back(traced);
    result_.outcomes.emplace_back();
    result_.refusals.emplace_back();
    result_.stays.push_back({engine_->steps, std::nullopt});
    ids_.push_back(0);
    Request request = traced.request;
    if (traced.num_true_drafts > 0) request.draft_tokens = true_drafts(traced);
    if (traced.deadline_ms) request.deadline = Clock::now() + std::chrono::milliseconds(*traced.deadline_ms);
    if (traced.is_cancelled_at) {
      request.is_cancelled = [this, at = *traced.is_cancelled_at] { return engine_->steps >= at; };
    }
    max_steps_ += kStepsPerToken * trace_.options.max_steps_in_flight * work(request);
    try {
      ++num_accepted_;
      ids_[index] = manager_->submit(
          std::move(request), [this, index](RequestId id, const Response& response) { receive(index, id, response); });
    } catch (const Error& error) {
      --num_accepted_;
      result_.refusals[index] = error.what();
    }
  }

  static int64_t work(const Request& request) {
    const int32_t width = std::max(request.num_return_sequences, request.beam_search.beam_width);
    return static_cast<int64_t>(request.input_ids.size()) + int64_t{width} * request.max_new_tokens + 1;
  }

  std::vector<int32_t> true_drafts(const TraceRequest& traced) {
    std::vector<int32_t> drafts = solo_runs_.run(traced, 0, trace_.options).sequences.at(0).tokens;
    drafts.resize(std::min<size_t>(drafts.size(), traced.num_true_drafts));
    if (traced.wrong_draft && *traced.wrong_draft < static_cast<int32_t>(drafts.size())) {
      int32_t& draft = drafts[*traced.wrong_draft];
      draft = (draft + 1) % vocab_size_;
    }
    return drafts;
  }

  // From the delivery thread.
  void receive(size_t index, RequestId id, const Response& response) {
    std::lock_guard lock(mutex_);
    RequestOutcome& outcome = result_.outcomes[index];
    const TraceRequest& traced = result_.requests[index];
    const bool had_ended = outcome.ended();
    outcome.add(traced.request, response, vocab_size_);
    if (!had_ended && outcome.ended()) ++num_ended_;
    if (traced.cancel_after && !outcome.ended() && outcome.num_tokens() >= *traced.cancel_after) manager_->cancel(id);
    if (outcome.ended()) changed_.notify_one();
  }

  void violate(const std::string& what) {
    std::lock_guard lock(mutex_);
    violations_.push_back(what);
  }

  // From the loop's thread, before the final response leaves.
  void note_end(const RequestTimes& times) {
    std::lock_guard lock(ends_mutex_);
    ends_.emplace_back(times, engine_->steps);
  }

  void add_stays() {
    for (const auto& [times, step] : ends_) {
      const size_t index = std::find(ids_.begin(), ids_.end(), times.id) - ids_.begin();
      if (index == ids_.size() || result_.stays[index].ended) {
        violations_.push_back(concat("on_request_end of request ", times.id, ", which has ended or never was"));
        continue;
      }
      result_.stays[index].ended = step;
      const RequestOutcome& outcome = result_.outcomes[index];
      if (times.failed != outcome.has_failed()) violations_.push_back("on_request_end does not know who failed");
      int32_t generated = 0;
      for (const SequenceOutcome& sequence : outcome.sequences)
        generated += static_cast<int32_t>(sequence.tokens.size());
      const bool counts = result_.requests[index].request.beam_search.beam_width == 1 && !times.failed;
      if (counts && times.generated_tokens != generated) {
        violations_.push_back(concat("on_request_end of request ", index, " counts ", times.generated_tokens,
                                     " generated tokens of ", generated));
      }
    }
    for (size_t i = 0; i < ids_.size(); ++i) {
      if (result_.refusals[i].empty() && !result_.stays[i].ended) {
        violations_.push_back(concat("no on_request_end of request ", i));
      }
    }
  }

  // From the loop's thread, after a step.
  void check_statistics(const StepStatistics& step) {
    const auto [max_batch_size, max_num_tokens, num_blocks] = limits_;
    if (step.scheduled_slices < 1 || step.scheduled_slices > max_batch_size ||
        step.scheduled_slices != step.context_slices + step.generation_slices ||
        step.context_tokens + step.generation_tokens > max_num_tokens ||
        step.free_blocks + step.used_blocks != num_blocks || step.free_blocks < 0) {
      violate(concat("statistics of step ", step.step, " do not add up"));
    }
  }

  // Ends the batch manager; if that hangs, another thread says so.
  void stop() {
    std::mutex mutex;
    std::condition_variable stopped;
    bool is_stopped = false;
    std::thread stopping([&] {
      owner_.reset();
      std::lock_guard lock(mutex);
      is_stopped = true;
      stopped.notify_one();
    });
    {
      std::unique_lock lock(mutex);
      if (!stopped.wait_for(lock, model_.patience, [&] { return is_stopped; })) {
        stopping.detach();
        throw Hang{"the batch manager's destructor does not return"};
      }
    }
    stopping.join();
  }

  [[noreturn]] void hang() {
    std::string message = concat("after ", engine_->steps.load(), " steps these requests wait for ever:");
    for (size_t i = 0; i < result_.outcomes.size(); ++i) {
      if (result_.refusals[i].empty() && !result_.outcomes[i].ended()) message += concat(" ", i);
    }
    const Statistics statistics = manager_->statistics();
    throw Hang{concat(message, "; running ", statistics.running_sequences, ", queued ", statistics.queued_sequences,
                      ", paused ", statistics.paused_sequences, ", free blocks ", statistics.free_blocks, " of ",
                      statistics.total_blocks)};
  }

  const Trace& trace_;
  TraceModel& model_;
  SoloRuns& solo_runs_;
  TraceEngine* engine_ = nullptr;  // owned by the batch manager
  int32_t vocab_size_ = 0;
  size_t num_submissions_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  size_t next_event_ = 0;
  int64_t max_steps_ = kStepsPerToken;
  size_t num_accepted_ = 0;
  size_t num_ended_ = 0;
  bool stop_asked_ = false;
  std::vector<RequestId> ids_;  // parallel to TraceResult::requests
  std::vector<std::string> violations_;
  TraceResult result_;

  struct Limits {
    int32_t max_batch_size, max_num_tokens, num_blocks;
  };
  Limits limits_{};
  std::mutex ends_mutex_;
  std::vector<std::pair<RequestTimes, int64_t>> ends_;

  BatchManager* manager_ = nullptr;  // a response may cancel its request while owner_, empty by then, destroys it
  std::unique_ptr<BatchManager> owner_;  // last: its threads use all of the above
};

}  // namespace

const std::filesystem::path& TraceModel::engine(int32_t tokens_per_block) {
  std::filesystem::path& directory = engines[tokens_per_block];
  if (directory.empty()) directory = write_engine(random_model(trace_config(tokens_per_block), 1));
  return directory;
}

const RequestOutcome& SoloRuns::run(const TraceRequest& request, int32_t sequence, const TraceOptions& options) {
  nlohmann::json fields = request.fields;
  for (const char* name : {"streaming", "priority", "draft_tokens", "num_true_drafts", "wrong_draft", "retention",
                           "lora_task_id", "prompt_extra_ids", "cancel_after", "is_cancelled_at", "deadline_ms"}) {
    fields.erase(name);
  }
  if (request.request.beam_search.beam_width <= 1) {
    fields.erase("num_return_sequences");
    fields["random_seed"] = request.request.sampling.random_seed + sequence;
  }
  TraceOptions plain;
  plain.engine = options.engine;
  plain.tokens_per_block = options.tokens_per_block;
  const nlohmann::json key = {fields, plain.engine.max_attention_windows, plain.engine.sink_tokens,
                              plain.tokens_per_block};
  const std::string name = key.dump();
  if (const auto it = outcomes_.find(name); it != outcomes_.end()) return it->second;
  const Trace trace{plain, {{0, read_request(fields)}}};
  TraceResult result = run_trace(trace, model_, *this);
  if (!result.refusals[0].empty()) throw_error(ErrorCode::kInvalidArgument, "alone: ", result.refusals[0]);
  return outcomes_[name] = std::move(result.outcomes[0]);
}

TraceResult run_trace(const Trace& trace, TraceModel& model, SoloRuns& solo_runs) {
  // Left behind by a Hang: its threads may still run.
  auto run = std::make_unique<TraceRun>(trace, model, solo_runs);
  try {
    return run->run();
  } catch (const Hang&) {
    run.release();
    throw;
  }
}

}  // namespace inflight::test
