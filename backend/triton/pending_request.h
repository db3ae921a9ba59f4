#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "batch_manager/request.h"
#include "triton/handles.h"
#include "triton/late_ends.h"
#include "triton/response_writer.h"

namespace inflight::triton {

class PendingRequest;

// The requests that have not ended, so that they can be stopped: by the client's id, if they have one, and by their
// stop_id.
class RunningRequests {
 public:
  void add(const std::string& id, PendingRequest* request);
  void remove(const std::string& id, PendingRequest* request);
  // An id that is not there has ended already, or never was: nothing to do.
  void stop(const std::string& id);

 private:
  std::mutex mutex_;
  std::unordered_multimap<std::string, PendingRequest*> requests_;
};

// A Triton request after its release: what is left of it until its last response is sent. It ends exactly once, with
// a response that carries the final flag. All methods may be called from any thread and none throws.
class PendingRequest : public std::enable_shared_from_this<PendingRequest> {
 public:
  // `prompts` holds the tokens that output_ids starts with, one entry for each sequence of the batch.
  PendingRequest(ResponseFactoryHandle factory, ResponseWriter writer, std::vector<std::vector<int32_t>> prompts,
                 std::string id, RunningRequests& running, LateEnds& late_ends);
  ~PendingRequest();

  // The request id that a request with `stop` has to have to end this one, for those who did not choose the id: the
  // steps of an ensemble. The number is random, so that clients do not stop each other's by accident or by guessing.
  static std::string stop_id(uint64_t generation_id);

  // The client went away, cancelled or stopped the request, or it has ended with an error.
  bool is_cancelled() const noexcept;
  void stop() noexcept { stopped_ = true; }

  // Sends what one sequence generated; a cancelled one's final response goes through LateEnds. The last sequence's
  // final response ends the request, and so does an error.
  void deliver(size_t sequence, const Response& response) noexcept;
  void fail(const std::exception& error) noexcept;

 private:
  void deliver_now(size_t sequence, const Response& response) noexcept;
  void send(size_t sequence, const Response& response);
  void end_with_error(const std::exception& error) noexcept;

  const ResponseFactoryHandle factory_;
  const ResponseWriter writer_;
  const std::vector<std::vector<int32_t>> prompts_;
  const std::string id_;
  const uint64_t generation_id_;
  RunningRequests& running_;
  LateEnds& late_ends_;

  std::atomic<bool> stopped_ = false;
  std::atomic<bool> ended_ = false;
  std::mutex mutex_;  // guards sending
  size_t unfinished_sequences_;
};

// Answers a request that never became pending: one response without tensors, or the error, and the final flag.
void send_only_response(TRITONBACKEND_ResponseFactory* factory, const std::exception* error) noexcept;

}  // namespace inflight::triton
