#include "triton/fetched_requests.h"

#include <algorithm>
#include <utility>

namespace inflight::triton {
namespace {

constexpr std::chrono::milliseconds kSweepPeriod(100);  // where nothing is announced meanwhile
// After steps, all requests together are announced no more often: each time is a small request of an ensemble, which
// takes 25 to 30 µs of CPU.
constexpr std::chrono::microseconds kAnnouncementPeriod(500);

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
    is_next_round_due_ = true;
  }
  changed_.notify_one();
}

void FetchedRequests::step_ended() noexcept {
  if (Clock::now() < next_round_.load(std::memory_order_relaxed)) return;
  {
    std::lock_guard lock(mutex_);
    is_next_round_due_ = true;
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

void FetchedRequests::announce_silent(const std::vector<std::shared_ptr<PendingRequest>>& requests) {
  const auto begin = Clock::now();
  const auto runs_silently = [](const auto& request) { return request->is_silent() && request->has_started(); };
  const auto step_period = kAnnouncementPeriod * std::ranges::count_if(requests, runs_silently);
  bool any_is_silent = false;
  for (const auto& request : requests) {
    any_is_silent |= request->is_silent();
    request->announce_if_due(begin, runs_silently(request) ? Clock::duration(step_period) : period_);
  }
  next_round_ = any_is_silent ? begin + step_period : Clock::time_point::max();
}

void FetchedRequests::run() {
  const bool announces = period_.count() > 0;
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_closing_ || !requests_.empty(); });
    changed_.wait_for(lock, announces ? period_ : kSweepPeriod, [this] { return is_closing_ || is_next_round_due_; });
    if (is_closing_) return;
    is_next_round_due_ = false;
    const auto requests = all();
    lock.unlock();
    for (const auto& request : requests) request->drop_if_abandoned();
    if (announces) announce_silent(requests);
    lock.lock();
    std::erase_if(requests_, [](const auto& entry) { return entry.second->is_fetched(); });
    if (requests_.empty()) next_round_ = Clock::time_point::max();
  }
}

}  // namespace inflight::triton
