#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "triton/triton_api.h"

// As much of tritonserver as the backend uses, in this process: what Triton promises, and what it must be promised. A
// broken promise fails the test: a response after the final one, a request released twice, a metric that is made while
// another is deleted.
namespace inflight::test {

struct FakeInput {
  std::string name;
  TRITONSERVER_DataType datatype;
  std::vector<int64_t> shape;
  std::vector<std::byte> data;
  size_t num_buffers = 1;  // that `data` comes in
};

FakeInput ints(const std::string& name, std::vector<int64_t> shape, const std::vector<int32_t>& values);
FakeInput flag(const std::string& name, bool value);
FakeInput generation(uint64_t id);

struct FakeResponse {
  std::map<std::string, std::vector<std::byte>> outputs;
  std::string error;  // empty: none
  bool is_final = false;

  uint64_t generation_id() const;  // of an announcement; 0: it is none
};

// What Triton keeps of a request after its release: who waits for its responses.
class FakeClient {
 public:
  // `on_response` is called with each response, from the thread that sends it; one without outputs may be only the end.
  explicit FakeClient(std::function<void(const FakeResponse&)> on_response = nullptr)
      : on_response_(std::move(on_response)) {}

  void take(const FakeResponse& response);
  void cancel() { is_cancelled_ = true; }
  bool is_cancelled() const { return is_cancelled_; }
  FakeResponse wait_for_end() const;

 private:
  const std::function<void(const FakeResponse&)> on_response_;
  std::atomic<bool> is_cancelled_ = false;
  mutable std::mutex mutex_;
  FakeResponse last_;
  std::atomic<bool> has_ended_ = false;
};

struct FakeRequest {
  std::string id;
  std::vector<FakeInput> inputs;
  std::vector<std::string> outputs;
  std::shared_ptr<FakeClient> client;
};

// One loaded model with one instance, as Triton makes and deletes them.
class FakeModel {
 public:
  FakeModel(const std::string& name, const std::filesystem::path& engine, bool decoupled);
  ~FakeModel();  // like an unload that does not wait for requests
  FakeModel(const FakeModel&) = delete;
  FakeModel& operator=(const FakeModel&) = delete;

  // As Triton's one execution thread of the instance does; may be called from several.
  void execute(FakeRequest request);

  uint64_t succeeded() const;
  uint64_t failed() const;

 private:
  std::unique_ptr<TRITONBACKEND_Model> model_;
  std::unique_ptr<TRITONBACKEND_ModelInstance> instance_;
  std::mutex executing_;
};

// The next call of this function fails, once.
void fail_next(const std::string& function);

// All objects that the backend has made and not deleted.
int64_t live_objects();

// Calls the body with a request as the backend sees it.
void with_triton_request(FakeRequest request, const std::function<void(TRITONBACKEND_Request*)>& body);

}  // namespace inflight::test
