#include "triton/model/instance_state.h"

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "batch_manager/draft_model.h"
#include "common/error.h"
#include "triton/errors.h"
#include "triton/request/request_reader.h"
#include "triton/shutdown.h"

namespace inflight::triton {
namespace {

std::unique_ptr<Engine> load_checked_engine(const BackendConfig& config) {
  std::unique_ptr<Engine> engine;
  try {
    engine = load_engine(config.engine_dir, config.engine);
  } catch (const Error& error) {  // names a parameter, or something in the engine's files
    throw_error(error.code(), config.file.string(), ": ", error.what());
  }
  check_against_engine(config, engine->info());
  return engine;
}

// Null without draft_engine_dir.
std::unique_ptr<Engine> load_draft_engine(const BackendConfig& config, const EngineInfo& target) {
  if (config.draft_engine_dir.empty()) return nullptr;
  try {
    auto engine = load_engine(config.draft_engine_dir, {.num_threads = config.engine.num_threads});
    check_draft_model(engine->info(), target);
    return engine;
  } catch (const Error& error) {
    throw_error(error.code(), config.file.string(), ": parameter draft_engine_dir is \"",
                config.draft_engine_dir.string(), "\": ", error.what());
  }
}

}  // namespace

InstanceState::InstanceState(const ModelState& model, TRITONBACKEND_ModelInstance* instance)
    : config_(model.config()),
      instance_(instance),
      fetched_(config_.decoupled ? config_.cancellation_check_period : std::chrono::milliseconds(0)),
      steps_(config_.iter_stats_max_iterations),
      metrics_(model.metric_owner(), config_.batch_manager.scheduler_policy == SchedulerPolicy::kStaticBatch),
      batch_manager_(make_batch_manager(model.server())),
      reporter_(model.metric_owner().model, config_.batch_manager.scheduler_policy == SchedulerPolicy::kStaticBatch,
                batch_manager_, steps_, metrics_, config_.stats_check_period) {}

BatchManager InstanceState::make_batch_manager(TRITONSERVER_Server* server) {
  auto engine = load_checked_engine(config_);
  BatchManagerOptions options = config_.batch_manager;
  options.draft_model.engine = load_draft_engine(config_, engine->info());
  options.on_step = [this](const StepStatistics& step) {
    steps_.add(step);
    fetched_.step_ended();
  };
  options.on_request_end = [this](const RequestTimes& times) { metrics_.observe(times); };
  options.on_engine_lost = [server](const Error& reason) { end_without_engine(server, reason); };
  return BatchManager(std::move(engine), options);
}

// Triton's statistics count requests and the time that reading and queueing them takes: a request is released, as it
// must be for them, long before its last response. Fetches are no requests of their own.
void InstanceState::execute(std::span<TRITONBACKEND_Request* const> requests) noexcept {
  const uint64_t batch_begin = steady_now_ns();
  size_t counted = 0;
  for (TRITONBACKEND_Request* request : requests) {
    const uint64_t begin = steady_now_ns();
    const Outcome outcome = start(request);
    const uint64_t end = steady_now_ns();
    if (outcome != Outcome::kFetched) {
      ++counted;
      log_if_error(TRITONBACKEND_ModelInstanceReportStatistics(instance_, request, outcome == Outcome::kStarted, begin,
                                                               begin, end, end));
    }
    log_if_error(TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL));
  }
  if (counted == 0) return;
  const uint64_t batch_end = steady_now_ns();
  log_if_error(TRITONBACKEND_ModelInstanceReportBatchStatistics(instance_, counted, batch_begin, batch_begin, batch_end,
                                                                batch_end));
}

InstanceState::Outcome InstanceState::start(TRITONBACKEND_Request* triton_request) noexcept {
  ResponseFactoryHandle factory;
  try {
    TRITONBACKEND_ResponseFactory* handle;
    check(TRITONBACKEND_ResponseFactoryNew(&handle, triton_request));
    factory.reset(handle);
    InferenceRequest request = read_request(triton_request, config_, batch_manager_.engine_info());
    if (request.fetched_generation) {
      fetch(*request.fetched_generation, request.outputs, factory.get());
      return Outcome::kFetched;
    }
    if (is_shutting_down()) throw shutdown_error();
    if (request.stop) {
      running_.stop(request.id);
      send_only_response(factory.get(), nullptr);
      return Outcome::kStarted;
    }
    return submit(std::move(request), factory);
  } catch (const std::exception& error) {
    if (factory) {
      send_only_response(factory.get(), &error);
    } else {
      send_only_response(triton_request, error);
    }
    return Outcome::kRefused;
  }
}

ResponseFormat InstanceState::response_format(const InferenceRequest& request) const {
  return {.has_batch_dimension = config_.max_batch_size > 0,
          .return_log_probs = request.sequences.front().sampling.return_log_probs,
          .return_generation_logits = request.sequences.front().return_generation_logits,
          .return_kv_cache_reuse_stats = request.return_kv_cache_reuse_stats,
          .return_perf_metrics = request.return_perf_metrics,
          .return_num_input_tokens = request.return_num_input_tokens,
          .return_num_output_tokens = request.return_num_output_tokens,
          .fills_unasked = config_.fills_unasked_outputs,
          .logits_datatype = config_.logits_datatype,
          .vocab_size = batch_manager_.engine_info().vocab_size};
}

InstanceState::Outcome InstanceState::submit(InferenceRequest request, ResponseFactoryHandle& factory) {
  const Request& first = request.sequences.front();
  const bool returns_prompt = !first.streaming && !request.exclude_input_in_output;
  std::vector<PromptOutput> prompts;
  for (const Request& sequence : request.sequences) {
    prompts.push_back({.tokens = returns_prompt ? sequence.input_ids : std::vector<int32_t>(),
                       .num_tokens = static_cast<int32_t>(sequence.input_ids.size())});
  }
  ResponseWriter writer(request.outputs, response_format(request));
  const auto pending = std::make_shared<PendingRequest>(instance_, factory, std::move(writer), std::move(prompts),
                                                        request.id, running_, late_ends_);
  try {
    if (pending->is_announced()) fetched_.add(pending);
    for (size_t i = 0; i < request.sequences.size(); ++i) {
      Request& sequence = request.sequences[i];
      sequence.on_start = [this, pending] {
        if (pending->has_started()) return;  // with another sequence of its batch
        pending->note_start();
        if (pending->is_announced()) fetched_.note_start(pending);
      };
      sequence.is_cancelled = [pending] { return pending->is_cancelled(); };
      batch_manager_.submit(std::move(sequence),
                            [pending, i](RequestId, const Response& response) { pending->deliver(i, response); });
    }
  } catch (const std::exception& error) {
    pending->fail(error);  // the batch's sequences that were submitted before see it as cancelled
    return Outcome::kRefused;
  }
  return Outcome::kStarted;
}

// That there is nothing to fetch is no mistake of the client: the request was announced while it was silent.
void InstanceState::fetch(uint64_t generation_id, const std::vector<std::string>& outputs,
                          TRITONBACKEND_ResponseFactory* factory) {
  if (const auto pending = fetched_.find(generation_id)) {
    bool cancelled = false;
    check(TRITONBACKEND_ResponseFactoryIsCancelled(factory, &cancelled));
    if (cancelled) pending->stop();
    if (pending->answer(factory, outputs)) return;
  }
  if (!config_.decoupled) {
    throw_error(ErrorCode::kNotFound, "generation_id ", generation_id, " has no response to fetch; send it once, when ",
                "it has been received");
  }
  send_final_flag(factory);
}

}  // namespace inflight::triton
