#pragma once

#include <cstdint>
#include <memory>

#include "batch_manager/request.h"
#include "engine/engine.h"

namespace inflight {

struct BatchManagerOptions {
  int32_t max_queue_size = 0;  // requests waiting to be scheduled; 0 → no limit
  bool enable_chunked_context = true;
  // The delivery thread sends at most this many responses a second over all requests and joins tokens
  // of one sequence that are ready together; 0 → no limit.
  int32_t max_responses_per_second = 0;
};

// A snapshot, consistent with itself.
struct Statistics {
  uint64_t iterations;       // steps since the start
  int32_t active_requests;   // scheduled or running
  int32_t queued_requests;
  int32_t free_blocks;
  int32_t total_blocks;
  uint64_t context_tokens;   // since the start
  uint64_t generated_tokens;
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
