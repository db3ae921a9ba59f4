#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace inflight::triton {

// Sends the last response of cancelled requests a moment after the cancellation. Triton's gRPC front end (2.51, before
// its pull request 8078) frees a request with its last response while another of its threads still handles the
// cancellation: sent at once, one in a few hundred takes the server down. Nobody waits for these responses.
class LateEnds {
 public:
  explicit LateEnds(std::chrono::milliseconds delay = std::chrono::milliseconds(50));
  ~LateEnds();  // runs what is left, each when it is due
  LateEnds(const LateEnds&) = delete;
  LateEnds& operator=(const LateEnds&) = delete;

  // Calls `end`, which must not throw, after the delay, from a thread of its own; ends are called one at a time and in
  // the order in which they came.
  void add(std::function<void()> end);

 private:
  using Clock = std::chrono::steady_clock;

  void run();

  const std::chrono::milliseconds delay_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<Clock::time_point, std::function<void()>>> ends_;
  bool is_closing_ = false;
  std::thread thread_;  // last: it uses the above
};

}  // namespace inflight::triton
