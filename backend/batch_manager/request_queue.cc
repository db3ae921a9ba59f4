#include "batch_manager/request_queue.h"

namespace inflight {

void RequestQueue::add(std::shared_ptr<RequestState> request) {
  const RequestState& added = *request;
  if (added.request.deadline) deadlines_.emplace(*added.request.deadline, added.id);
  keys_.emplace(added.id, key(added));
  requests_.emplace(key(added), std::move(request));
}

std::shared_ptr<RequestState> RequestQueue::find(RequestId id) const {
  const auto found = keys_.find(id);
  return found == keys_.end() ? nullptr : requests_.at(found->second);
}

std::shared_ptr<RequestState> RequestQueue::remove(const RequestState& request) {
  if (request.request.deadline) deadlines_.erase({*request.request.deadline, request.id});
  keys_.erase(request.id);
  return std::move(requests_.extract(key(request)).mapped());
}

std::shared_ptr<RequestState> RequestQueue::overdue(Clock::time_point now) const {
  if (deadlines_.empty() || deadlines_.begin()->first > now) return nullptr;
  return find(deadlines_.begin()->second);
}

std::shared_ptr<RequestState> RequestQueue::next_in_turn() {
  if (requests_.empty()) return nullptr;
  auto next = requests_.upper_bound(last_turn_);
  if (next == requests_.end()) next = requests_.begin();
  last_turn_ = next->first;
  return next->second;
}

}  // namespace inflight
