// Preloaded into tritonserver by the launcher: what Triton's gRPC front end (2.51) needs when clients cancel.
//
// A state of its stands for each request, and two events must not meet (infer_handler.h, stream_infer_handler.cc):
//
// - A request that was cancelled has its final response while the write of an earlier one is still reported. Both put
//   the state into the completion queue, the first frees it, and the second ends the server with signal 11. So final
//   responses of cancelled requests come a moment later. Nobody waits for them.
// - A request has had its final response, but its write is still reported, when its client cancels or goes away. The
//   state is marked as one that a response callback will free (CANCELLATION_ISSUED), and no callback comes: the state,
//   the stream and its socket stay for ever. So, if it is still there after a second, the callback is called once more.

#include <malloc.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "triton/preload/called_from_executable.h"
#include "triton/preload/late_ends.h"

extern "C" {
struct TRITONSERVER_Error;
struct TRITONSERVER_InferenceRequest;
struct TRITONSERVER_InferenceResponse;
struct TRITONSERVER_ResponseAllocator;
using TRITONSERVER_InferenceResponseCompleteFn_t = void (*)(TRITONSERVER_InferenceResponse*, uint32_t, void*);
}

namespace {

constexpr uint32_t kFinal = 1;  // TRITONSERVER_RESPONSE_COMPLETE_FINAL

// InferHandler::ResponseReleasePayload of Triton 2.51, which the callback frees with the final response. Later versions
// have a larger one: their requests are left alone.
struct ResponseReleasePayload {
  void* state;
  void* shared_memory_regions[3];  // an empty std::vector
};

bool is_payload(void* user) {
  return user != nullptr && malloc_usable_size(user) <= sizeof(ResponseReleasePayload) + 8;
}

// One request of the gRPC front end.
class GrpcRequest {
 public:
  GrpcRequest(TRITONSERVER_InferenceResponseCompleteFn_t callback, void* payload)
      : callback_(callback), payload_(payload), state_(static_cast<ResponseReleasePayload*>(payload)->state) {}

  void respond(TRITONSERVER_InferenceResponse* response, uint32_t flags) const { callback_(response, flags, payload_); }

  // Its final response is there: whether it must be late, as the request is cancelled.
  bool end() {
    std::lock_guard lock(mutex_);
    is_ended_ = true;
    return is_cancelled_;
  }

  // True if the front end has its final response already, or is taking it: it may wait for another one now.
  bool cancel() {
    std::lock_guard lock(mutex_);
    return !std::exchange(is_cancelled_, true) && is_ended_;
  }

  void end_once_more() const { callback_(nullptr, kFinal, new ResponseReleasePayload{state_, {}}); }

 private:
  const TRITONSERVER_InferenceResponseCompleteFn_t callback_;
  void* const payload_;
  void* const state_;
  std::mutex mutex_;
  bool is_cancelled_ = false;
  bool is_ended_ = false;
};

// From when a request gets its callback until it is deleted.
class GrpcRequests {
 public:
  void add(TRITONSERVER_InferenceRequest* handle, std::shared_ptr<GrpcRequest> request) {
    std::lock_guard lock(mutex_);
    requests_[handle] = std::move(request);
  }
  void remove(TRITONSERVER_InferenceRequest* handle) {
    std::lock_guard lock(mutex_);
    requests_.erase(handle);
  }
  std::shared_ptr<GrpcRequest> find(TRITONSERVER_InferenceRequest* handle) const {
    std::lock_guard lock(mutex_);
    const auto found = requests_.find(handle);
    return found == requests_.end() ? nullptr : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<TRITONSERVER_InferenceRequest*, std::shared_ptr<GrpcRequest>> requests_;
};

// What follows outlives the threads that answer while the process exits.

GrpcRequests& requests() {
  static GrpcRequests& requests = *new GrpcRequests;
  return requests;
}

inflight::triton::LateEnds& late_ends() {
  static auto& ends = *new inflight::triton::LateEnds;
  return ends;
}

inflight::triton::LateEnds& missing_ends() {
  static auto& ends = *new inflight::triton::LateEnds(std::chrono::seconds(1));
  return ends;
}

void respond(TRITONSERVER_InferenceResponse* response, uint32_t flags, void* user) {
  auto* const owner = static_cast<std::shared_ptr<GrpcRequest>*>(user);
  const std::shared_ptr<GrpcRequest> request = *owner;
  if ((flags & kFinal) == 0) return request->respond(response, flags);
  delete owner;
  if (request->end()) {
    late_ends().add([request, response, flags] { request->respond(response, flags); });
  } else {
    request->respond(response, flags);
  }
}

}  // namespace

#define INFLIGHT_INTERPOSE extern "C" __attribute__((visibility("default"))) TRITONSERVER_Error*

INFLIGHT_INTERPOSE TRITONSERVER_InferenceRequestSetResponseCallback(TRITONSERVER_InferenceRequest* handle,
                                                                    TRITONSERVER_ResponseAllocator* allocator,
                                                                    void* allocator_user,
                                                                    TRITONSERVER_InferenceResponseCompleteFn_t callback,
                                                                    void* user) {
  static const auto next = inflight::next_function<decltype(TRITONSERVER_InferenceRequestSetResponseCallback)>(
      "TRITONSERVER_InferenceRequestSetResponseCallback");
  if (!inflight::is_in_executable(__builtin_return_address(0)) || !is_payload(user)) {
    return next(handle, allocator, allocator_user, callback, user);
  }
  auto request = std::make_shared<GrpcRequest>(callback, user);
  auto owner = std::make_unique<std::shared_ptr<GrpcRequest>>(request);
  TRITONSERVER_Error* error = next(handle, allocator, allocator_user, respond, owner.get());
  if (error == nullptr) {
    owner.release();
    requests().add(handle, std::move(request));
  }
  return error;
}

INFLIGHT_INTERPOSE TRITONSERVER_InferenceRequestCancel(TRITONSERVER_InferenceRequest* handle) {
  static const auto next =
      inflight::next_function<decltype(TRITONSERVER_InferenceRequestCancel)>("TRITONSERVER_InferenceRequestCancel");
  if (const auto request = requests().find(handle); request != nullptr && request->cancel()) {
    missing_ends().add([handle, request] {
      if (requests().find(handle) == request) request->end_once_more();
    });
  }
  return next(handle);
}

INFLIGHT_INTERPOSE TRITONSERVER_InferenceRequestDelete(TRITONSERVER_InferenceRequest* handle) {
  static const auto next =
      inflight::next_function<decltype(TRITONSERVER_InferenceRequestDelete)>("TRITONSERVER_InferenceRequestDelete");
  requests().remove(handle);
  return next(handle);
}
