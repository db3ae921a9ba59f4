#include "triton/preload/late_ends.h"

namespace inflight::triton {

LateEnds::LateEnds(std::chrono::milliseconds delay) : delay_(delay), thread_([this] { run(); }) {}

LateEnds::~LateEnds() {
  {
    std::lock_guard lock(mutex_);
    is_closing_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void LateEnds::add(std::function<void()> end) {
  {
    std::lock_guard lock(mutex_);
    ends_.emplace_back(Clock::now() + delay_, std::move(end));
  }
  changed_.notify_one();
}

void LateEnds::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_closing_ || !ends_.empty(); });
    if (ends_.empty()) return;
    auto [due, end] = std::move(ends_.front());
    ends_.pop_front();
    lock.unlock();
    std::this_thread::sleep_until(due);
    end();
    end = nullptr;  // what it holds may go here, not under the lock
    lock.lock();
  }
}

}  // namespace inflight::triton
