#include "triton/request/fetched_requests.h"

#include <algorithm>
#include <utility>

namespace inflight::triton {
namespace {

constexpr std::chrono::milliseconds kSweepPeriod(100);  // where nothing is announced meanwhile
// An announcement is a small request of an ensemble, which takes 25 to 30 µs of CPU. After steps, all requests together
// are announced no more often than this;
constexpr std::chrono::microseconds kAnnouncementPeriod(500);
// and all that wait for their first step no more often than this.
constexpr std::chrono::milliseconds kWaitingAnnouncementPeriod(5);

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

void FetchedRequests::note_start(const std::shared_ptr<PendingRequest>& request) {
  {
    std::lock_guard lock(mutex_);
    started_.push_back(request);
    is_next_round_due_ = true;
  }
  changed_.notify_one();
}

// Those whose responses nobody fetches, those that are fetched to their end, and those that wait for their first step.
void FetchedRequests::look_at_all(std::unique_lock<std::mutex>& lock) {
  Requests requests;
  for (const auto& [id, request] : requests_) requests.push_back(request);
  lock.unlock();
  const auto now = Clock::now();
  const auto waits = [](const auto& request) { return request->is_silent() && !request->has_started(); };
  const auto period =
      std::max<Clock::duration>(period_, kWaitingAnnouncementPeriod * std::ranges::count_if(requests, waits));
  for (const auto& request : requests) {
    request->drop_if_abandoned();
    if (period_.count() > 0 && waits(request)) request->announce_if_due(now, period);
  }
  lock.lock();
  std::erase_if(requests_, [](const auto& entry) { return entry.second->is_fetched(); });
}

void FetchedRequests::announce_started(std::unique_lock<std::mutex>& lock) {
  std::erase_if(started_, [](const auto& request) { return !request->is_silent(); });
  const Requests requests = started_;
  lock.unlock();
  const auto now = Clock::now();
  const auto period = kAnnouncementPeriod * static_cast<int64_t>(requests.size());
  for (const auto& request : requests) request->announce_if_due(now, period);
  next_round_ = requests.empty() ? Clock::time_point::max() : now + period;
  lock.lock();
}

void FetchedRequests::run() {
  const auto period = period_.count() > 0 ? period_ : kSweepPeriod;
  auto next_look = Clock::now();
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_closing_ || !requests_.empty(); });
    changed_.wait_until(lock, next_look, [this] { return is_closing_ || is_next_round_due_; });
    if (is_closing_) return;
    is_next_round_due_ = false;
    if (period_.count() > 0) announce_started(lock);
    if (Clock::now() < next_look) continue;
    look_at_all(lock);
    next_look = Clock::now() + period;
  }
}

}  // namespace inflight::triton
