#include "batch_manager/batch_manager.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "batch_manager/delivery.h"
#include "batch_manager/request_check.h"
#include "batch_manager/scheduler.h"
#include "common/logging.h"

namespace inflight {

struct BatchManager::Implementation {
  Implementation(std::unique_ptr<Engine> engine_in, const BatchManagerOptions& options_in)
      : options(options_in),
        engine(std::move(engine_in)),
        scheduler(engine->info(), options.enable_chunked_context),
        delivery(options.max_responses_per_second) {
    const EngineInfo& info = engine->info();
    if (info.max_num_tokens < info.max_batch_size) {
      throw_error(ErrorCode::kInvalidArgument, "the engine's max_num_tokens (", info.max_num_tokens,
                  ") is below its max_batch_size (", info.max_batch_size,
                  "): a step could not hold one token of each sequence; rebuild with a larger --max-num-tokens");
    }
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

  // --- the loop thread ---

  void run() {
    while (wait_for_work()) {
      try {
        mark_cancelled();
        finish_sequences();
        const auto& chunks = scheduler.schedule();
        if (!chunks.empty()) {
          run_step(chunks);
          finish_sequences();
        }
        update_statistics();
      } catch (const std::exception& error) {  // such as std::bad_alloc: those who wait must not wait for ever
        log_error("the batch manager failed: ", error.what());
        fail_all(Error(ErrorCode::kInternal, concat("the batch manager failed: ", error.what())));
      }
    }
    fail_all(Error(ErrorCode::kUnavailable, "the server is stopping"));
  }

  // Takes what was submitted. False when it is time to stop.
  bool wait_for_work() {
    std::unique_lock lock(mutex);
    wake.wait(lock, [this] { return stopping || !arrivals.empty() || !scheduler.empty(); });
    for (auto& sequence : arrivals) scheduler.add(std::move(sequence));
    arrivals.clear();
    cancelled.swap(cancelled_ids);
    statistics.queued_requests = scheduler.num_waiting();
    return !stopping;
  }

  void mark_cancelled() {
    scheduler.for_each([this](Sequence& sequence) {
      const auto& is_cancelled = sequence.request.is_cancelled;
      if (cancelled.count(sequence.id) != 0 || (is_cancelled && is_cancelled())) {
        sequence.finish_reason = FinishReason::kCancelled;
      }
    });
    cancelled.clear();
  }

  void run_step(const std::vector<ScheduledChunk>& chunks) {
    try {
      slices.clear();
      for (const auto& [sequence, num_tokens] : chunks) {
        if (sequence->num_cached == 0) {
          engine->configure(sequence->slot, sequence->request.sampling, sequence->request.input_ids);
        }
        SequenceSlice slice;
        slice.slot = sequence->slot;
        slice.tokens = std::span(sequence->tokens).subspan(sequence->num_cached, num_tokens);
        slice.past_length = sequence->num_cached;
        slice.block_ids = sequence->blocks.block_ids;
        slice.samples = num_tokens == sequence->num_uncached();
        slices.push_back(slice);
      }
      const StepOutput output = engine->wait(engine->submit({slices}));
      accept(chunks, output);
    } catch (const Error& error) {
      fail_step(chunks, error);
    } catch (const std::exception& error) {
      fail_step(chunks, Error(ErrorCode::kInternal, concat("the engine failed: ", error.what())));
    }
  }

  void accept(const std::vector<ScheduledChunk>& chunks, const StepOutput& output) {
    ++iterations;
    size_t next_sampled = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      Sequence& sequence = *chunks[i].sequence;
      if (sequence.in_context_phase()) context_tokens += chunks[i].num_tokens;
      sequence.num_cached += chunks[i].num_tokens;
      if (!slices[i].samples) continue;
      const int32_t before = sequence.num_generated();
      sequence.accept(output.tokens.at(next_sampled++));
      generated_tokens += sequence.num_generated() - before;
      if (sequence.request.streaming && !sequence.is_finished()) {
        delivery.post(sequence.channel, unsent(sequence));
      }
    }
  }

  // A step that fails ends the sequences that were in it; the others go on.
  void fail_step(const std::vector<ScheduledChunk>& chunks, const Error& error) {
    log_error("a step of ", chunks.size(), " sequences failed: ", error.what());
    for (const auto& chunk : chunks) chunk.sequence->error = error;
  }

  void fail_all(const Error& error) {
    scheduler.for_each([&](Sequence& sequence) { sequence.error = error; });
    finish_sequences();
  }

  void finish_sequences() {
    for (const auto& sequence : scheduler.take_finished()) {
      Response response = unsent(*sequence);
      response.is_final = true;
      response.finish_reason = sequence->finish_reason;
      response.error = sequence->error;
      finished.emplace_back(sequence->channel, std::move(response));
    }
    if (finished.empty()) return;
    // Who sees a final response finds the blocks free and the request gone in the statistics.
    update_statistics();
    for (auto& [channel, response] : finished) delivery.post(channel, std::move(response));
    finished.clear();
  }

  // The generated tokens that no response holds yet.
  static Response unsent(Sequence& sequence) {
    Response response;
    const size_t begin = sequence.prompt_length + sequence.num_sent;
    response.tokens.assign(sequence.tokens.begin() + begin, sequence.tokens.end());
    if (sequence.request.sampling.return_log_probs) {
      response.log_probs.assign(sequence.log_probs.begin() + sequence.num_sent, sequence.log_probs.end());
    }
    response.cum_log_prob = sequence.cum_log_prob;
    response.kv_cache_alloc_total_blocks = sequence.num_blocks;
    sequence.num_sent = sequence.num_generated();
    return response;
  }

  void update_statistics() {
    std::lock_guard lock(mutex);
    statistics.iterations = iterations;
    statistics.active_requests = scheduler.num_running();
    statistics.queued_requests = scheduler.num_waiting();
    statistics.kv_cache = scheduler.kv_cache().statistics();
    statistics.free_blocks = statistics.kv_cache.free_blocks;
    statistics.total_blocks = statistics.kv_cache.total_blocks;
    statistics.context_tokens = context_tokens;
    statistics.generated_tokens = generated_tokens;
  }

  // --- the callers' threads ---

  RequestId submit(Request request, ResponseCallback callback) {
    check_request(request, engine->info(), options.enable_chunked_context);
    if (request.sampling.end_ids.empty()) request.sampling.end_ids = engine->info().end_ids;
    RequestId id;
    {
      std::lock_guard lock(mutex);
      if (stopping) throw_error(ErrorCode::kUnavailable, "the server is stopping");
      const size_t queued = arrivals.size() + statistics.queued_requests;
      if (options.max_queue_size > 0 && queued >= static_cast<size_t>(options.max_queue_size)) {
        throw_error(ErrorCode::kUnavailable, "the queue is full: ", queued, " requests wait; try again later");
      }
      id = next_id++;
      auto channel = std::make_shared<ResponseChannel>(id, std::move(callback));
      arrivals.push_back(std::make_unique<Sequence>(id, std::move(request), std::move(channel)));
    }
    wake.notify_one();
    return id;
  }

  void cancel(RequestId id) {
    std::lock_guard lock(mutex);
    cancelled_ids.insert(id);
  }

  const BatchManagerOptions options;
  const std::unique_ptr<Engine> engine;

  // Shared between the callers and the loop.
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  RequestId next_id = 1;
  std::vector<std::unique_ptr<Sequence>> arrivals;
  std::unordered_set<RequestId> cancelled_ids;
  Statistics statistics{};

  // The loop's own.
  Scheduler scheduler;
  std::unordered_set<RequestId> cancelled;
  std::vector<SequenceSlice> slices;
  std::vector<std::pair<std::shared_ptr<ResponseChannel>, Response>> finished;
  uint64_t iterations = 0;
  uint64_t context_tokens = 0;
  uint64_t generated_tokens = 0;

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
