#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "batch_manager/request.h"
#include "batch_manager/statistics.h"
#include "engine/engine.h"

namespace inflight {

enum class SchedulerPolicy {
  kGuaranteedNoEvict,  // a sequence starts when its whole length can be reserved in the KV cache, and never pauses
  kMaxUtilization,  // it starts when its next chunk fits; the latest is paused when the cache is full, computed anew
                    // later
  kStaticBatch,  // as kGuaranteedNoEvict, but a batch starts together, when the one before it has ended; further
                 // sequences of its requests join it when the prompt is computed
};

// Drafts for speculative decoding, looked up in the sequence's own text: what followed the last time that its latest
// tokens occurred (arXiv:2304.04487).
struct PromptLookupOptions {
  int32_t max_draft_tokens = 0;  // 0: no drafts
  int32_t max_ngram = 3;  // the longest of the sequence's last tokens that are looked up; at most 64
};

// Drafts from a smaller model of the same vocabulary, which runs before each step.
struct DraftModelOptions {
  std::shared_ptr<Engine> engine;  // null: none
  int32_t num_draft_tokens = 4;  // in a step, of each sequence
};

// Of the stop words of a request, and of its bad words: more are refused. Of words as tokens, twice as many and as long
// are taken, since each may come in two spellings.
struct WordLimits {
  int32_t max_words = 8192;
  int32_t max_length = 65536;  // bytes of all words together
};

struct BatchManagerOptions {
  int32_t max_queue_size = 0;  // sequences that wait to start; 0 → no limit
  bool enable_chunked_context = true;
  // The delivery thread sends at most this many responses a second over all requests and joins tokens
  // of one sequence that are ready together; 0 → no limit.
  int32_t max_responses_per_second = 0;
  SchedulerPolicy scheduler_policy = SchedulerPolicy::kGuaranteedNoEvict;
  bool enable_kv_cache_reuse = false;
  PromptLookupOptions prompt_lookup = {};
  DraftModelOptions draft_model = {};  // not with prompt lookup
  WordLimits word_limits = {};
  std::filesystem::path tokenizer_dir = {};  // of guided decoding; empty: requests with guided_decoding are refused
  // Called from the loop thread, which they hold up; they must not throw. May be empty.
  std::function<void(const StepStatistics&)> on_step = {};  // after every step
  std::function<void(const RequestTimes&)> on_request_end = {};
  // The engine is lost (ErrorCode::kEngineLost): every request has had its final response with the reason, and no other
  // is taken. Only another process can go on.
  std::function<void(const Error&)> on_engine_lost = {};
};

// In-flight batching over one engine: requests join and leave between steps. One loop thread schedules
// and runs steps, one delivery thread calls the callbacks. All methods may be called from any thread.
class BatchManager {
 public:
  BatchManager(std::unique_ptr<Engine> engine, const BatchManagerOptions& options);
  ~BatchManager();  // ends every request that is left with a kUnavailable error, then joins its threads

  const EngineInfo& engine_info() const;

  // Checks the request and queues it. Throws Error (kInvalidArgument: what to change; kUnavailable: the
  // queue is full), and then never calls `callback`.
  RequestId submit(Request request, ResponseCallback callback);

  // Ends the request at the next step boundary with a final response, FinishReason::kCancelled and the
  // tokens so far. A request that has ended already, or an id that never was, is left alone.
  void cancel(RequestId id);

  Statistics statistics() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace inflight
