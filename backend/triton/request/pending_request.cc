#include "triton/request/pending_request.h"

#include <algorithm>
#include <random>
#include <utility>

#include "triton/errors.h"
#include "triton/shutdown.h"

namespace inflight::triton {
namespace {

constexpr std::chrono::minutes kAbandoned(1);
constexpr std::chrono::seconds kFetchLost(1);  // how long a fetch can take; then it has failed on its way

ResponseHandle new_response(TRITONBACKEND_ResponseFactory* factory) {
  TRITONBACKEND_Response* response;
  check(TRITONBACKEND_ResponseNewFromFactory(&response, factory));
  return ResponseHandle(response);
}

uint64_t random_generation_id() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

}  // namespace

void RunningRequests::add(const std::string& id, PendingRequest* request) {
  std::lock_guard lock(mutex_);
  requests_.emplace(id, request);
}

void RunningRequests::remove(const std::string& id, PendingRequest* request) {
  std::lock_guard lock(mutex_);
  const auto [begin, end] = requests_.equal_range(id);
  for (auto entry = begin; entry != end; ++entry) {
    if (entry->second == request) {
      requests_.erase(entry);
      return;
    }
  }
}

void RunningRequests::stop(const std::string& id) {
  std::lock_guard lock(mutex_);
  const auto [begin, end] = requests_.equal_range(id);
  for (auto entry = begin; entry != end; ++entry) entry->second->stop();
}

PendingRequest::PendingRequest(TRITONBACKEND_ModelInstance* instance, ResponseFactoryHandle& factory,
                               ResponseWriter writer, std::vector<PromptOutput> prompts, std::string id,
                               RunningRequests& running, LateEnds& late_ends)
    : statistics_(instance, factory.get()),
      writer_(std::move(writer)),
      prompts_(std::move(prompts)),
      id_(std::move(id)),
      generation_id_(random_generation_id()),
      running_(running),
      late_ends_(late_ends),
      num_silent_sequences_(prompts_.size()),
      unfinished_sequences_(prompts_.size()),
      has_sent_(prompts_.size()) {
  if (!id_.empty()) running_.add(id_, this);
  factory_ = std::move(factory);
}

PendingRequest::~PendingRequest() {
  if (!id_.empty()) running_.remove(id_, this);
}

bool PendingRequest::is_cancelled() const noexcept {
  if (stopped_ || ended_ || is_shutting_down()) return true;
  bool cancelled = false;
  log_if_error(TRITONBACKEND_ResponseFactoryIsCancelled(factory_.get(), &cancelled));
  return cancelled;
}

void PendingRequest::deliver(size_t sequence, const Response& response) noexcept {
  if (response.finish_reason == FinishReason::kCancelled && is_shutting_down()) {
    Response ended = response;
    ended.error = shutdown_error();
    deliver_now(sequence, ended);
  } else if (response.finish_reason == FinishReason::kCancelled) {
    late_ends_.add([self = shared_from_this(), sequence, response] { self->deliver_now(sequence, response); });
  } else {
    deliver_now(sequence, response);
  }
}

void PendingRequest::deliver_now(size_t sequence, const Response& response) noexcept {
  std::lock_guard lock(sending_);
  if (ended_) return;
  if (response.error && !is_announced()) return end_with_error(*response.error);
  try {
    send(sequence, response);
  } catch (const std::exception& error) {
    end_with_error(error);
  }
}

void PendingRequest::fail(const std::exception& error) noexcept {
  std::lock_guard lock(sending_);
  if (!ended_) end_with_error(error);
}

void PendingRequest::send(size_t sequence, const Response& content) {
  if (!has_sent_[sequence]) {
    has_sent_[sequence] = true;
    --num_silent_sequences_;
  }
  const bool ends = content.error || (content.is_final && --unfinished_sequences_ == 0);
  const uint32_t flags = ends ? TRITONSERVER_RESPONSE_COMPLETE_FINAL : 0;
  if (is_announced()) {
    std::lock_guard lock(fetching_);
    fetchable_.push_back({sequence, content, Clock::now()});
    ended_ = ends;
  } else {
    const uint64_t begin = steady_now_ns();
    ResponseHandle response = new_response(factory_.get());
    writer_.write(response.get(), history_.add_to(content, sequence), prompts_[sequence],
                  static_cast<int32_t>(sequence));
    ended_ = ends;
    log_if_error(TRITONBACKEND_ResponseSend(response.release(), flags, nullptr));
    return count(content, begin);
  }
  announce(flags);
}

void PendingRequest::announce(uint32_t flags) {
  ResponseHandle response = new_response(factory_.get());
  writer_.write_announcement(response.get(), generation_id_);
  last_announcement_ = Clock::now();
  {
    std::lock_guard lock(fetching_);
    ++unfetched_announcements_;
  }
  log_if_error(TRITONBACKEND_ResponseSend(response.release(), flags, nullptr));
}

void PendingRequest::end_with_error(const std::exception& error) noexcept {
  ended_ = true;
  send_only_response(factory_.get(), &error);
  statistics_.add_failure(error);
}

void PendingRequest::count(const Response& content, uint64_t output_begin) noexcept {
  if (content.finish_reason == FinishReason::kCancelled) {
    statistics_.add_cancellation();
  } else {
    statistics_.add_success(output_begin, content.is_final);
  }
}

bool PendingRequest::answer(TRITONBACKEND_ResponseFactory* fetch, const std::vector<std::string>& outputs) noexcept {
  std::unique_lock lock(fetching_);
  last_fetch_ = Clock::now();
  if (unfetched_announcements_ > 0) --unfetched_announcements_;
  if (fetchable_.empty()) return false;
  Fetchable content = std::move(fetchable_.front());
  fetchable_.pop_front();
  try {
    if (content.response.error) throw *content.response.error;
    content.response = history_.add_to(std::move(content.response), content.sequence);
    lock.unlock();
    const uint64_t begin = steady_now_ns();
    ResponseHandle response = new_response(fetch);
    writer_.for_outputs(outputs).write(response.get(), content.response, prompts_[content.sequence],
                                       static_cast<int32_t>(content.sequence));
    log_if_error(TRITONBACKEND_ResponseSend(response.release(), TRITONSERVER_RESPONSE_COMPLETE_FINAL, nullptr));
    count(content.response, begin);
  } catch (const std::exception& error) {
    if (lock.owns_lock()) lock.unlock();
    send_only_response(fetch, &error);
    statistics_.add_failure(error);
  }
  return true;
}

bool PendingRequest::is_fetched() const noexcept {
  std::lock_guard lock(fetching_);
  return ended_ && fetchable_.empty();
}

void PendingRequest::announce_if_due(Clock::time_point now, std::chrono::nanoseconds period) noexcept {
  std::unique_lock lock(sending_, std::try_to_lock);  // whoever holds it sends
  if (!lock || ended_ || now - last_announcement_ < period) return;
  {
    std::lock_guard fetching(fetching_);
    if (unfetched_announcements_ > 0 && now - last_announcement_ < kFetchLost) return;  // Triton is busy
  }
  try {
    announce(0);
    last_announcement_ = now;  // so that those of one round are due at the same time again
  } catch (const std::exception& error) {
    end_with_error(error);
  }
}

void PendingRequest::drop_if_abandoned() noexcept {
  std::lock_guard lock(fetching_);
  if (fetchable_.empty() || Clock::now() - std::max(last_fetch_, fetchable_.front().since) < kAbandoned) return;
  stop();
  fetchable_.clear();
}

void send_only_response(TRITONBACKEND_ResponseFactory* factory, const std::exception* error) noexcept {
  try {
    const ErrorHandle triton_error = error != nullptr ? to_triton_error(*error) : nullptr;
    log_if_error(TRITONBACKEND_ResponseSend(new_response(factory).release(), TRITONSERVER_RESPONSE_COMPLETE_FINAL,
                                            triton_error.get()));
  } catch (const std::exception& failure) {
    // Without a response there is still the flag, which ends the client's wait.
    log_if_error(to_triton_error(failure).release());
    send_final_flag(factory);
  }
}

void send_only_response(TRITONBACKEND_Request* request, const std::exception& error) noexcept {
  const ErrorHandle triton_error = to_triton_error(error);
  TRITONBACKEND_Response* response;
  if (TRITONSERVER_Error* failure = TRITONBACKEND_ResponseNew(&response, request)) return log_if_error(failure);
  log_if_error(TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, triton_error.get()));
}

void send_final_flag(TRITONBACKEND_ResponseFactory* factory) noexcept {
  log_if_error(TRITONBACKEND_ResponseFactorySendFlags(factory, TRITONSERVER_RESPONSE_COMPLETE_FINAL));
}

}  // namespace inflight::triton
