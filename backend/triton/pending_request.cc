#include "triton/pending_request.h"

#include <random>
#include <utility>

#include "triton/errors.h"

namespace inflight::triton {
namespace {

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

PendingRequest::PendingRequest(ResponseFactoryHandle factory, ResponseWriter writer,
                               std::vector<std::vector<int32_t>> prompts, std::string id, RunningRequests& running,
                               LateEnds& late_ends)
    : factory_(std::move(factory)),
      writer_(std::move(writer)),
      prompts_(std::move(prompts)),
      id_(std::move(id)),
      generation_id_(random_generation_id()),
      running_(running),
      late_ends_(late_ends),
      unfinished_sequences_(prompts_.size()) {
  if (!id_.empty()) running_.add(id_, this);
  running_.add(stop_id(generation_id_), this);
}

PendingRequest::~PendingRequest() {
  if (!id_.empty()) running_.remove(id_, this);
  running_.remove(stop_id(generation_id_), this);
}

std::string PendingRequest::stop_id(uint64_t generation_id) { return concat("generation-", generation_id); }

bool PendingRequest::is_cancelled() const noexcept {
  if (stopped_ || ended_) return true;
  bool cancelled = false;
  log_if_error(TRITONBACKEND_ResponseFactoryIsCancelled(factory_.get(), &cancelled));
  return cancelled;
}

void PendingRequest::deliver(size_t sequence, const Response& response) noexcept {
  if (response.finish_reason == FinishReason::kCancelled) {
    late_ends_.add([self = shared_from_this(), sequence, response] { self->deliver_now(sequence, response); });
  } else {
    deliver_now(sequence, response);
  }
}

void PendingRequest::deliver_now(size_t sequence, const Response& response) noexcept {
  std::lock_guard lock(mutex_);
  if (ended_) return;
  if (response.error) return end_with_error(*response.error);
  try {
    send(sequence, response);
  } catch (const std::exception& error) {
    end_with_error(error);
  }
}

void PendingRequest::fail(const std::exception& error) noexcept {
  std::lock_guard lock(mutex_);
  if (!ended_) end_with_error(error);
}

void PendingRequest::send(size_t sequence, const Response& content) {
  ResponseHandle response = new_response(factory_.get());
  writer_.write(response.get(), content, prompts_[sequence], static_cast<int32_t>(sequence), generation_id_);
  if (content.is_final) ended_ = --unfinished_sequences_ == 0;
  log_if_error(
      TRITONBACKEND_ResponseSend(response.release(), ended_ ? TRITONSERVER_RESPONSE_COMPLETE_FINAL : 0, nullptr));
}

void PendingRequest::end_with_error(const std::exception& error) noexcept {
  ended_ = true;
  send_only_response(factory_.get(), &error);
}

void send_only_response(TRITONBACKEND_ResponseFactory* factory, const std::exception* error) noexcept {
  try {
    const ErrorHandle triton_error = error != nullptr ? to_triton_error(*error) : nullptr;
    log_if_error(TRITONBACKEND_ResponseSend(new_response(factory).release(), TRITONSERVER_RESPONSE_COMPLETE_FINAL,
                                            triton_error.get()));
  } catch (const std::exception& failure) {
    // Without a response there is still the flag, which ends the client's wait.
    log_if_error(to_triton_error(failure).release());
    log_if_error(TRITONBACKEND_ResponseFactorySendFlags(factory, TRITONSERVER_RESPONSE_COMPLETE_FINAL));
  }
}

}  // namespace inflight::triton
