// The backend between threads that act as Triton's do, without Triton: see fake_triton.h.

#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <latch>
#include <random>
#include <thread>

#include "check.h"
#include "fake_triton.h"
#include "tiny_model.h"
#include "triton/metrics/metrics.h"
#include "triton/shutdown.h"

using namespace inflight;
using namespace inflight::test;

namespace {

const std::vector<std::string> kOutputs = {"output_ids", "sequence_length", "cum_log_probs", "sequence_finished"};

const std::filesystem::path& engine() {
  static const std::filesystem::path directory = write_engine(random_model(tiny_config(), 1));
  return directory;
}

FakeRequest request(std::shared_ptr<FakeClient> client, int32_t max_tokens, bool streaming, int64_t batch_size = 1) {
  std::vector<int32_t> ids, lengths(batch_size, 3), tokens(batch_size, max_tokens);
  for (int64_t i = 0; i < batch_size; ++i) ids.insert(ids.end(), {1, 2, 3});
  return {"",
          {ints("input_ids", {batch_size, 3}, ids), ints("input_lengths", {batch_size, 1}, lengths),
           ints("request_output_len", {batch_size, 1}, tokens), flag("streaming", streaming)},
          kOutputs,
          std::move(client)};
}

// What an ensemble does: it asks for announcements, and with each begins a step that fetches.
class Ensemble {
 public:
  explicit Ensemble(FakeModel& model) : model_(model), thread_([this] { fetch(); }) {}
  ~Ensemble() {
    post(0);
    thread_.join();
  }

  void run(int32_t max_tokens, bool streaming, bool cancels) {
    auto client = std::make_shared<FakeClient>([this](const FakeResponse& response) {
      if (const uint64_t id = response.generation_id()) post(id);
    });
    FakeRequest announced = request(client, max_tokens, streaming);
    announced.outputs = {"generation_id"};
    is_cancelled_ = false;
    model_.execute(std::move(announced));
    if (cancels) is_cancelled_ = true;
    client->wait_for_end();
  }

 private:
  void post(uint64_t id) {
    std::lock_guard lock(mutex_);
    ids_.push_back(id);
    changed_.notify_one();
  }

  void fetch() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return !ids_.empty(); });
      const uint64_t id = ids_.front();
      ids_.erase(ids_.begin());
      if (id == 0) return;
      lock.unlock();
      auto client = std::make_shared<FakeClient>();
      if (is_cancelled_) client->cancel();
      model_.execute({"", {generation(id)}, kOutputs, client});
      client->wait_for_end();
      lock.lock();
    }
  }

  FakeModel& model_;
  std::atomic<bool> is_cancelled_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint64_t> ids_;
  std::thread thread_;
};

std::vector<std::thread> threads(int count, const std::function<void(uint32_t)>& body) {
  std::vector<std::thread> all;
  for (int i = 0; i < count; ++i) all.emplace_back(body, static_cast<uint32_t>(i));
  return all;
}

void join(std::vector<std::thread> all) {
  for (std::thread& thread : all) thread.join();
}

}  // namespace

TEST(every_request_of_many_threads_has_one_end) {
  const int64_t before = live_objects();
  {
    FakeModel model("concurrent", engine(), true);
    auto clients = threads(3, [&model](uint32_t seed) {
      std::mt19937 random(seed);
      for (int i = 0; i < 40; ++i) {
        auto client = std::make_shared<FakeClient>();
        FakeRequest sent = request(client, 1 + random() % 12, random() % 2 == 0, 1 + random() % 3);
        sent.id = std::to_string(random() % 4);
        if (random() % 6 == 0) sent.inputs.pop_back();
        if (random() % 6 == 0) sent.inputs[random() % sent.inputs.size()].shape = {7};
        model.execute(std::move(sent));
        if (random() % 4 == 0) client->cancel();
        if (random() % 8 == 0) {
          auto stopper = std::make_shared<FakeClient>();
          model.execute({std::to_string(random() % 4), {flag("stop", true)}, {}, stopper});
          stopper->wait_for_end();
        }
        client->wait_for_end();
      }
    });
    auto ensembles = threads(2, [&model](uint32_t seed) {
      std::mt19937 random(seed);
      Ensemble ensemble(model);
      for (int i = 0; i < 20; ++i) ensemble.run(1 + random() % 12, random() % 2 == 0, random() % 3 == 0);
    });
    join(std::move(clients));
    join(std::move(ensembles));
  }
  CHECK_EQ(live_objects(), before);
}

TEST(an_unloaded_model_ends_its_requests) {
  const int64_t before = live_objects();
  std::vector<std::shared_ptr<FakeClient>> clients;
  {
    FakeModel model("unloaded", engine(), true);
    for (int i = 0; i < 20; ++i) {
      clients.push_back(std::make_shared<FakeClient>());
      model.execute(request(clients.back(), 12, i % 2 == 0));
    }
  }
  for (const auto& client : clients) client->wait_for_end();
  clients.clear();
  CHECK_EQ(live_objects(), before);
}

TEST(metrics_with_the_same_labels_come_and_go_at_the_same_time) {
  const int64_t before = live_objects();
  std::latch started(2);
  join(threads(2, [&started](uint32_t) {
    started.arrive_and_wait();
    for (int i = 0; i < 3000; ++i) triton::Metrics({"reloaded", 1}, false).observe({});
  }));
  CHECK_EQ(live_objects(), before);
}

TEST(metrics_that_could_not_all_be_made_leave_none) {
  const int64_t before = live_objects();
  fail_next("TRITONSERVER_MetricNewWithArgs");
  CHECK_ERROR(triton::Metrics({"failing", 1}, false), ErrorCode::kInternal, "planned");
  CHECK_EQ(live_objects(), before);
}

TEST(no_failure_of_triton_loses_a_request) {
  for (const char* function : {"TRITONBACKEND_ResponseFactoryNew", "TRITONBACKEND_ModelInstanceResponseStatisticsNew",
                               "TRITONBACKEND_ResponseNewFromFactory", "TRITONBACKEND_OutputBuffer"}) {
    const int64_t before = live_objects();
    {
      FakeModel model("failing", engine(), true);
      auto client = std::make_shared<FakeClient>();
      fail_next(function);
      model.execute(request(client, 2, false));
      CHECK_EQ(client->wait_for_end().error, "planned");
    }
    CHECK_EQ(live_objects(), before);
  }
}

TEST(a_refused_request_counts_as_a_failure) {
  FakeModel model("refusing", engine(), false);
  const auto answer = [&model](FakeRequest sent) {
    const auto client = sent.client;
    model.execute(std::move(sent));
    return client->wait_for_end();
  };
  CHECK_EQ(answer(request(std::make_shared<FakeClient>(), 2, false)).error, "");
  CHECK_EQ(model.succeeded(), 1u);
  FakeRequest unreadable = request(std::make_shared<FakeClient>(), 2, false);
  unreadable.inputs.erase(unreadable.inputs.begin());
  CHECK(answer(std::move(unreadable)).error.find("input_ids is missing") != std::string::npos);
  CHECK(answer(request(std::make_shared<FakeClient>(), 0, false)).error.find("request_output_len") !=
        std::string::npos);
  CHECK_EQ(model.succeeded(), 1u);
  CHECK_EQ(model.failed(), 2u);
}

TEST(a_server_whose_engine_is_lost_ends_with_a_status_of_its_own) {
  const pid_t child = fork();
  if (child == 0) {
    triton::end_without_engine(nullptr, Error(ErrorCode::kEngineLost, "the device is gone"));
    while (true) pause();
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), triton::kEngineLostStatus);
}

TEST_MAIN()
