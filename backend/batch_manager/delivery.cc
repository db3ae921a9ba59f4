#include "batch_manager/delivery.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace inflight {
namespace {

constexpr double kBurst = 32.0;  // responses that may leave back to back after a pause

template <class T>
void append(std::vector<T>& pending, const std::vector<T>& next) {
  pending.insert(pending.end(), next.begin(), next.end());
}

void join(Response& pending, Response&& next) {
  append(pending.tokens, next.tokens);
  append(pending.log_probs, next.log_probs);
  append(pending.ranks, next.ranks);
  append(pending.top_log_probs, next.top_log_probs);
  append(pending.generation_logits, next.generation_logits);
  if (next.context_logits != nullptr) pending.context_logits = std::move(next.context_logits);
  if (next.logits_memory != nullptr) pending.logits_memory = std::move(next.logits_memory);
  pending.cum_log_prob = next.cum_log_prob;
  pending.beams = std::move(next.beams);
  pending.kv_cache_alloc_total_blocks = next.kv_cache_alloc_total_blocks;
  pending.kv_cache_reused_blocks = next.kv_cache_reused_blocks;
  pending.kv_cache_alloc_new_blocks = next.kv_cache_alloc_new_blocks;
  pending.perf_metrics = next.perf_metrics;
  pending.is_sequence_final = next.is_sequence_final;
  pending.finish_reason = next.finish_reason;
  pending.stop = next.stop;
  pending.error = std::move(next.error);
}

void keep_last(std::vector<int32_t>& preceding, const std::vector<int32_t>& sent) {
  preceding.insert(preceding.end(), sent.begin(), sent.end());
  if (preceding.size() > kPrecedingTokens) preceding.erase(preceding.begin(), preceding.end() - kPrecedingTokens);
}

}  // namespace

Delivery::Delivery(int32_t max_responses_per_second)
    : max_responses_per_second_(max_responses_per_second), thread_([this] { run(); }) {}

Delivery::~Delivery() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  posted_.notify_one();
  thread_.join();
}

Delivery::Posting::~Posting() {
  const bool wakes = was_idle_ && !delivery_.queue_.empty();
  lock_.unlock();
  if (wakes) delivery_.posted_.notify_one();
}

void Delivery::Posting::post(const std::shared_ptr<ResponseChannel>& channel, Response response) {
  join(channel->pending_, std::move(response));
  if (channel->queued_) return;
  channel->queued_ = true;
  delivery_.queue_.push_back(channel);
}

void Delivery::flush() {
  std::unique_lock lock(mutex_);
  flushing_ = true;
  posted_.notify_one();
  sent_.wait(lock, [this] { return queue_.empty() && !sending_; });
  flushing_ = false;
}

void Delivery::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    posted_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    pace(lock);  // before taking the response: what is posted meanwhile joins it
    std::shared_ptr<ResponseChannel> channel = std::move(queue_.front());
    queue_.pop_front();
    Response response = std::exchange(channel->pending_, Response{});
    channel->queued_ = false;
    sending_ = true;

    lock.unlock();
    ResponseReceiver& receiver = *channel->receiver_;
    response.sequence_index = channel->sequence_index_;
    response.preceding_tokens = channel->preceding_;
    if (response.is_sequence_final) response.is_final = --receiver.open_channels == 0;
    receiver.callback(receiver.id, response);
    keep_last(channel->preceding_, response.tokens);
    channel.reset();  // the last reference frees the callback, which may wait for locks of its owner's
    lock.lock();
    sending_ = false;
    if (flushing_ && queue_.empty()) sent_.notify_one();
  }
}

void Delivery::pace(std::unique_lock<std::mutex>& lock) {
  if (max_responses_per_second_ <= 0) return;
  const auto refill = [this] {
    const auto now = Clock::now();
    credit_ += std::chrono::duration<double>(now - last_send_).count() * max_responses_per_second_;
    credit_ = std::min(credit_, kBurst);
    last_send_ = now;
  };
  refill();
  if (credit_ < 1.0) {
    const std::chrono::duration<double> until_due((1.0 - credit_) / max_responses_per_second_);
    posted_.wait_for(lock, until_due, [this] { return stopping_ || flushing_; });
    refill();
  }
  credit_ -= 1.0;
}

}  // namespace inflight
