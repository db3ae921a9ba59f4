#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "triton/request/pending_request.h"

namespace inflight::triton {

// The requests whose responses are fetched, and the thread that announces what is due: see PendingRequest.
class FetchedRequests {
 public:
  // While a request has nothing to deliver, it is announced after every step, once it has taken part in one, or else
  // every `period`, and less often the more of them there are. A period of 0: it is not announced, as its model is not
  // decoupled and has one announcement only.
  explicit FetchedRequests(std::chrono::milliseconds period);
  ~FetchedRequests();
  FetchedRequests(const FetchedRequests&) = delete;
  FetchedRequests& operator=(const FetchedRequests&) = delete;

  void add(std::shared_ptr<PendingRequest> request);
  // The request takes part in its first step. For the batch manager's loop, as step_ended().
  void note_start(const std::shared_ptr<PendingRequest>& request);

  // The batch manager has ended a step. For its loop: takes a lock that is never held for long.
  void step_ended() noexcept;

  // Null for a generation that has been fetched to its end, or never was.
  std::shared_ptr<PendingRequest> find(uint64_t generation_id) const;

 private:
  using Clock = std::chrono::steady_clock;

  using Requests = std::vector<std::shared_ptr<PendingRequest>>;

  void run();
  void look_at_all(std::unique_lock<std::mutex>& lock);
  void announce_started(std::unique_lock<std::mutex>& lock);

  const std::chrono::milliseconds period_;
  std::atomic<Clock::time_point> next_round_ = Clock::time_point::max();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<uint64_t, std::shared_ptr<PendingRequest>> requests_;
  Requests started_;  // of them, those that take part in steps and were silent when they were last looked at
  bool is_closing_ = false;
  bool is_next_round_due_ = false;
  std::thread thread_;  // last: it uses the above
};

}  // namespace inflight::triton
