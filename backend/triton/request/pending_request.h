#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "batch_manager/request.h"
#include "triton/handles.h"
#include "triton/preload/late_ends.h"
#include "triton/response/response_statistics.h"
#include "triton/response/response_writer.h"
#include "triton/response/stream_history.h"

namespace inflight::triton {

class PendingRequest;

// The requests that have an id and have not ended, so that the client can stop them.
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
//
// The responses of a request are sent, or, if generation_id is the only output that it asks for, announced: what is
// sent then holds the generation's id and nothing else, and each announcement lets the client fetch one response, by a
// request with that id. Ensembles do so, since Triton tells a step that the client has cancelled, or has gone, only
// when the step begins: each fetch is a step. So that such steps begin while nothing is generated, or while a request
// without streaming runs, a request is also announced after a step, or once in a while; that fetch gets no response.
class PendingRequest : public std::enable_shared_from_this<PendingRequest> {
 public:
  using Clock = std::chrono::steady_clock;

  // Takes `factory`, but not if it throws: the caller answers then. `prompts` has one entry for each sequence of the
  // batch.
  PendingRequest(TRITONBACKEND_ModelInstance* instance, ResponseFactoryHandle& factory, ResponseWriter writer,
                 std::vector<PromptOutput> prompts, std::string id, RunningRequests& running, LateEnds& late_ends);
  ~PendingRequest();

  // The client went away, cancelled or stopped the request, it has ended with an error, or the server shuts down.
  bool is_cancelled() const noexcept;
  void stop() noexcept { stopped_ = true; }

  // Delivers what one sequence generated; a cancelled one's final response goes through LateEnds. The last sequence's
  // final response ends the request, and so does an error.
  void deliver(size_t sequence, const Response& response) noexcept;
  void fail(const std::exception& error) noexcept;

  // Random, so that clients do not fetch each other's responses by accident or by guessing.
  uint64_t generation_id() const { return generation_id_; }
  bool is_announced() const { return writer_.announces(); }
  // Answers a fetch with the oldest response that is left, written with the outputs that it asks for; false if there
  // is none.
  bool answer(TRITONBACKEND_ResponseFactory* fetch, const std::vector<std::string>& outputs) noexcept;
  // Nothing is left to fetch, and nothing will come.
  bool is_fetched() const noexcept;
  // There are sequences of which nothing has been sent, and nobody has stopped them.
  bool is_silent() const noexcept { return num_silent_sequences_ > 0 && !stopped_ && !ended_; }
  // It has taken part in a step, and may have blocks.
  bool has_started() const noexcept { return has_started_; }
  void note_start() noexcept { has_started_ = true; }
  // Announces that there is nothing, unless something was announced within the last `period`; what is still to be
  // fetched puts it off.
  void announce_if_due(Clock::time_point now, std::chrono::nanoseconds period) noexcept;
  // Stops a request whose responses nobody has fetched for a minute: its ensemble has failed.
  void drop_if_abandoned() noexcept;

 private:
  struct Fetchable {
    size_t sequence;
    Response response;
    Clock::time_point since;
  };

  void deliver_now(size_t sequence, const Response& response) noexcept;
  void send(size_t sequence, const Response& response);
  void announce(uint32_t flags);
  void count(const Response& content, uint64_t output_begin) noexcept;
  void end_with_error(const std::exception& error) noexcept;

  ResponseFactoryHandle factory_;
  ResponseStatistics statistics_;
  const ResponseWriter writer_;
  const std::vector<PromptOutput> prompts_;
  const std::string id_;
  const uint64_t generation_id_;
  RunningRequests& running_;
  LateEnds& late_ends_;

  std::atomic<bool> stopped_ = false;
  std::atomic<bool> ended_ = false;
  std::atomic<bool> has_started_ = false;
  std::atomic<size_t> num_silent_sequences_;
  std::mutex sending_;  // held while something is sent, and while these two change
  size_t unfinished_sequences_;
  std::vector<bool> has_sent_;  // for each sequence
  Clock::time_point last_announcement_ = Clock::now();
  StreamHistory history_;  // of what was sent, or fetched
  mutable std::mutex fetching_;
  std::deque<Fetchable> fetchable_;
  Clock::time_point last_fetch_ = Clock::now();
  int64_t unfetched_announcements_ = 0;
};

// Answers a request that never became pending: one response without tensors, or the error, and the final flag.
void send_only_response(TRITONBACKEND_ResponseFactory* factory, const std::exception* error) noexcept;
// The same for one that not even a factory could be made of.
void send_only_response(TRITONBACKEND_Request* request, const std::exception& error) noexcept;
void send_final_flag(TRITONBACKEND_ResponseFactory* factory) noexcept;

}  // namespace inflight::triton
