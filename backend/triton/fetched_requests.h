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

#include "triton/pending_request.h"

namespace inflight::triton {

// The requests whose responses are fetched, and the thread that announces what is due: see PendingRequest.
class FetchedRequests {
 public:
  // While a request has nothing to deliver, it is announced after every step, once it has taken part in one, or else
  // every `period`; a period of 0: it is not, as its model is not decoupled and has one announcement only.
  explicit FetchedRequests(std::chrono::milliseconds period);
  ~FetchedRequests();
  FetchedRequests(const FetchedRequests&) = delete;
  FetchedRequests& operator=(const FetchedRequests&) = delete;

  void add(std::shared_ptr<PendingRequest> request);

  // The batch manager has ended a step. For its loop: takes a lock that is never held for long.
  void step_ended() noexcept;

  // Null for a generation that has been fetched to its end, or never was.
  std::shared_ptr<PendingRequest> find(uint64_t generation_id) const;

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  std::vector<std::shared_ptr<PendingRequest>> all() const;
  void announce_silent(const std::vector<std::shared_ptr<PendingRequest>>& requests);

  const std::chrono::milliseconds period_;
  std::atomic<Clock::time_point> next_round_ = Clock::time_point::max();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<uint64_t, std::shared_ptr<PendingRequest>> requests_;
  bool is_closing_ = false;
  bool is_next_round_due_ = false;
  std::thread thread_;  // last: it uses the above
};

}  // namespace inflight::triton
