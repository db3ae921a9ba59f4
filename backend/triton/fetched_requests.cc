#include "triton/fetched_requests.h"

#include <utility>

namespace inflight::triton {
namespace {

constexpr std::chrono::milliseconds kSweepPeriod(100);  // where nothing is announced meanwhile

}  // namespace

FetchedRequests::FetchedRequests(std::chrono::milliseconds period) : period_(period), thread_([this] { run(); }) {}

FetchedRequests::~FetchedRequests() {
  {
    std::lock_guard lock(mutex_);
    is_closing_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void FetchedRequests::add(std::shared_ptr<PendingRequest> request) {
  {
    std::lock_guard lock(mutex_);
    const uint64_t generation_id = request->generation_id();
    requests_.emplace(generation_id, std::move(request));
  }
  changed_.notify_one();
}

std::shared_ptr<PendingRequest> FetchedRequests::find(uint64_t generation_id) const {
  std::lock_guard lock(mutex_);
  const auto found = requests_.find(generation_id);
  return found == requests_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<PendingRequest>> FetchedRequests::all() const {
  std::vector<std::shared_ptr<PendingRequest>> requests;
  for (const auto& [id, request] : requests_) requests.push_back(request);
  return requests;
}

void FetchedRequests::run() {
  const bool announces = period_.count() > 0;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_closing_ || !requests_.empty(); });
    changed_.wait_for(lock, announces ? period_ : kSweepPeriod, [this] { return is_closing_; });
    if (is_closing_) return;
    const auto requests = all();
    lock.unlock();
    for (const auto& request : requests) {
      request->drop_if_abandoned();
      if (announces) request->announce_if_silent(period_);
    }
    lock.lock();
    std::erase_if(requests_, [](const auto& entry) { return entry.second->is_fetched(); });
  }
}

}  // namespace inflight::triton
