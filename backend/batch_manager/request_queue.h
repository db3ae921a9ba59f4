#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>

#include "batch_manager/request_state.h"

namespace inflight {

// Requests of which no sequence has been made, by rank. However many wait, no call looks at more than it is asked for.
class RequestQueue {
 public:
  using Clock = RequestState::Clock;

  bool empty() const { return requests_.empty(); }
  void add(std::shared_ptr<RequestState> request);
  // Of the smallest rank, then id. The queue must not be empty.
  const std::shared_ptr<RequestState>& first() const { return requests_.begin()->second; }
  std::shared_ptr<RequestState> find(RequestId id) const;  // null if it is not here
  std::shared_ptr<RequestState> remove(const RequestState& request);

  // A request whose deadline has passed; null if there is none.
  std::shared_ptr<RequestState> overdue(Clock::time_point now) const;
  // The requests one after another, again and again; null if the queue is empty.
  std::shared_ptr<RequestState> next_in_turn();

 private:
  using Key = std::pair<double, RequestId>;
  static Key key(const RequestState& request) { return {request.rank, request.id}; }

  std::map<Key, std::shared_ptr<RequestState>> requests_;
  std::unordered_map<RequestId, Key> keys_;
  std::set<std::pair<Clock::time_point, RequestId>> deadlines_;
  Key last_turn_{};  // of the request that next_in_turn() gave last
};

}  // namespace inflight
