#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "batch_manager/request.h"

namespace inflight {

// A request's callback, shared by the channels of its sequences.
struct ResponseReceiver {
  RequestId id;
  ResponseCallback callback;
  int32_t open_channels;  // that have yet to send their last response
};

// One sequence's way out: the tokens that wait to be sent.
class ResponseChannel {
 public:
  ResponseChannel(std::shared_ptr<ResponseReceiver> receiver, int32_t sequence_index)
      : receiver_(std::move(receiver)), sequence_index_(sequence_index) {}

 private:
  friend class Delivery;
  std::shared_ptr<ResponseReceiver> receiver_;
  int32_t sequence_index_;
  Response pending_;                // joined from what was posted since the last send
  bool queued_ = false;             // pending_ holds something to send
  std::vector<int32_t> preceding_;  // the last kPrecedingTokens tokens that were sent
};

// Calls the callbacks from a thread of its own, so that a slow client never stalls the loop.
//
// Channels are served in turn, at most max_responses_per_second a second in all. Tokens posted to a channel that
// still waits for its turn are joined into one response.
class Delivery {
 public:
  explicit Delivery(int32_t max_responses_per_second);
  ~Delivery();  // sends everything that was posted, no longer paced, then joins the thread

  // Queues a response; sequence_index, preceding_tokens and is_final are filled in here. Nothing may follow one with
  // is_sequence_final.
  void post(const std::shared_ptr<ResponseChannel>& channel, Response response) {
    Posting(*this).post(channel, std::move(response));
  }

  // Posts many responses at once: the thread that sends them is held up until this ends, and is woken once.
  class Posting {
   public:
    explicit Posting(Delivery& delivery) : delivery_(delivery), lock_(delivery.mutex_) {
      was_idle_ = delivery.queue_.empty();
    }
    ~Posting();
    void post(const std::shared_ptr<ResponseChannel>& channel, Response response);

   private:
    Delivery& delivery_;
    std::unique_lock<std::mutex> lock_;
    bool was_idle_;
  };

  // Sends everything that was posted, no longer paced, and returns when that is done. From the thread that posts.
  void flush();

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  void pace(std::unique_lock<std::mutex>& lock);

  const int32_t max_responses_per_second_;
  double credit_ = 0.0;  // responses that may be sent now
  Clock::time_point last_send_ = Clock::now();

  std::mutex mutex_;
  std::condition_variable posted_;
  std::condition_variable sent_;  // everything is
  std::deque<std::shared_ptr<ResponseChannel>> queue_;
  bool stopping_ = false;
  bool flushing_ = false;
  bool sending_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace inflight
