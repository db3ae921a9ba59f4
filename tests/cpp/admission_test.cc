// Who waits: what a request costs before it starts, and how it ends when it never does.

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "check.h"
#include "collector.h"
#include "paged_engine.h"

using namespace inflight;
using namespace inflight::test;
using namespace std::chrono_literals;

namespace {

// An engine whose steps wait until they are let go, one after another or all.
class HeldEngine {
 public:
  explicit HeldEngine(const EngineInfo& info) : engine_(std::make_unique<PagedEngine>(info)) {
    engine_->before_finish = [this](const StepInput&) {
      ++num_begun_;
      while (num_begun_ > num_allowed_) std::this_thread::sleep_for(100us);
    };
  }
  std::unique_ptr<PagedEngine> take() { return std::move(engine_); }
  void allow(int32_t steps) { num_allowed_ += steps; }
  void let_go() { num_allowed_ = 1'000'000'000; }
  void wait_until_step(int32_t step) const {
    while (num_begun_ < step) std::this_thread::sleep_for(100us);
  }

 private:
  std::unique_ptr<PagedEngine> engine_;
  std::atomic<int32_t> num_begun_ = 0;
  std::atomic<int32_t> num_allowed_ = 0;
};

// Counts the responses of a request of several sequences.
class Counter {
 public:
  ResponseCallback callback() {
    return [this](RequestId, const Response& response) {
      ++responses_;
      if (!response.is_final) return;
      reason_ = response.finish_reason;
      ended_ = true;
    };
  }
  FinishReason wait() const {
    while (!ended_) std::this_thread::sleep_for(100us);
    return reason_;
  }
  int32_t responses() const { return responses_; }

 private:
  std::atomic<int32_t> responses_ = 0;
  std::atomic<FinishReason> reason_ = FinishReason::kNone;
  std::atomic<bool> ended_ = false;
};

EngineInfo engine_of_one_slot() {
  EngineInfo info = small_engine();
  info.max_batch_size = 1;
  return info;
}

}  // namespace

TEST(a_step_asks_no_more_requests_whether_they_are_cancelled_however_many_wait) {
  HeldEngine held(engine_of_one_slot());
  std::atomic<int32_t> asked = 0;
  Collector running;
  std::vector<Collector> waiting(2000);
  std::atomic<int32_t> most = 0;
  BatchManagerOptions options;
  options.on_step = [&](const StepStatistics&) { most = std::max(most.load(), asked.exchange(0)); };
  BatchManager manager(held.take(), options);
  manager.submit(make_request({1, 2}, 40), running.callback());
  held.wait_until_step(1);
  for (auto& collector : waiting) {
    Request request = make_request({1, 2, 3}, 1);
    request.is_cancelled = [&] { return ++asked, false; };
    manager.submit(request, collector.callback());
  }
  held.let_go();
  running.wait();
  CHECK(most > 0);
  CHECK(most <= 32);
  for (auto& collector : waiting) CHECK(collector.wait().finish_reason == FinishReason::kLength);
}

TEST(a_request_that_is_cancelled_in_the_queue_ends_without_a_step) {
  HeldEngine held(engine_of_one_slot());
  std::vector<Collector> waiting(200);
  Collector running;
  std::atomic<bool> gone = false;
  BatchManager manager(held.take(), {});
  manager.submit(make_request({1, 2}, 60), running.callback());
  held.wait_until_step(1);
  std::vector<RequestId> ids;
  for (size_t i = 0; i < waiting.size(); ++i) {
    Request request = make_request({1, 2, 3}, 1);
    if (i == 150) request.is_cancelled = [&] { return gone.load(); };
    if (i == 120) request.deadline = std::chrono::steady_clock::now();
    ids.push_back(manager.submit(request, waiting[i].callback()));
  }
  manager.cancel(ids[100]);
  gone = true;
  held.allow(1);  // the loop looks at the queue before the second step
  held.wait_until_step(2);
  CHECK(waiting[100].wait().finish_reason == FinishReason::kCancelled);
  CHECK(waiting[120].wait().error->code() == ErrorCode::kUnavailable);
  held.allow(20);  // in turn
  CHECK(waiting[150].wait().finish_reason == FinishReason::kCancelled);
  CHECK_EQ(running.responses() < 40, true);
  held.let_go();
  for (size_t i = 0; i < waiting.size(); ++i) {
    const Response& last = waiting[i].wait();
    CHECK_EQ(last.finish_reason == FinishReason::kLength, i != 100 && i != 120 && i != 150);
  }
  CHECK_EQ(at_rest(manager).free_blocks, small_engine().num_blocks);
}

TEST(the_queue_counts_sequences) {
  EngineInfo info = small_engine();  // of 4 slots
  HeldEngine held(info);
  Collector first, too_many, full;
  Counter four;
  BatchManager manager(held.take(), {.max_queue_size = 4});
  manager.submit(make_request({1, 2}, 2), first.callback());
  held.wait_until_step(1);
  while (manager.statistics().running_sequences != 1) std::this_thread::sleep_for(100us);
  Request request = make_request({1, 2}, 2, /*streaming=*/false);
  request.num_return_sequences = 8;  // 3 slots are free
  CHECK_ERROR(manager.submit(request, too_many.callback()), ErrorCode::kUnavailable, "max_queue_size is 4");
  request.num_return_sequences = 4;
  manager.submit(request, four.callback());
  CHECK_ERROR(manager.submit(make_request({1}, 1), full.callback()), ErrorCode::kUnavailable, "the queue is full");
  held.let_go();
  first.wait();
  CHECK(four.wait() == FinishReason::kLength);
  CHECK_EQ(four.responses(), 4);
}

TEST(sequences_that_never_started_end_with_their_request) {
  EngineInfo info = small_engine();
  HeldEngine held(info);
  Counter thousand;
  Collector next;
  BatchManager manager(held.take(), {});
  Request request = make_request({1, 2, 3}, 60, /*streaming=*/false);
  request.num_return_sequences = 1000;
  const RequestId id = manager.submit(request, thousand.callback());
  held.wait_until_step(1);
  manager.cancel(id);
  held.let_go();
  CHECK(thousand.wait() == FinishReason::kCancelled);
  CHECK_EQ(thousand.responses(), 1000);
  manager.submit(make_request({1, 2, 3}, 2), next.callback());
  CHECK(next.wait().finish_reason == FinishReason::kLength);
  CHECK_EQ(at_rest(manager).free_blocks, info.num_blocks);
}

TEST(a_request_of_many_sequences_does_not_hold_up_those_who_come_next) {
  EngineInfo info = small_engine();  // of 4 slots
  HeldEngine held(info);
  Counter many;
  Collector next;
  std::atomic<int32_t> responses_before_next = -1;
  BatchManager manager(held.take(), {});
  Request request = make_request({1, 2, 3}, 3, /*streaming=*/false);
  request.num_return_sequences = 200;
  manager.submit(request, many.callback());
  held.wait_until_step(1);
  Request late = make_request({4, 5}, 3);
  late.on_start = [&] { responses_before_next = many.responses(); };
  manager.submit(late, next.callback());
  held.let_go();
  CHECK(next.wait().finish_reason == FinishReason::kLength);
  CHECK(many.wait() == FinishReason::kLength);
  CHECK(responses_before_next >= 0);
  CHECK(responses_before_next <= 8);  // of the sequences that had slots
}

TEST(a_failure_outside_of_a_step_ends_those_who_run_and_not_those_who_wait) {
  EngineInfo info = engine_of_one_slot();
  HeldEngine held(info);
  std::atomic<bool> fails = false;
  Collector running;
  std::vector<Collector> waiting(20);
  BatchManagerOptions options;
  options.on_step = [&](const StepStatistics&) {
    if (fails.exchange(false)) throw std::bad_alloc();  // as anything on the loop's thread may
  };
  BatchManager manager(held.take(), options);
  manager.submit(make_request({1, 2}, 60), running.callback());
  held.wait_until_step(1);
  for (auto& collector : waiting) manager.submit(make_request({1, 2, 3}, 3), collector.callback());
  fails = true;
  held.let_go();
  CHECK(running.wait().error->code() == ErrorCode::kInternal);
  for (auto& collector : waiting) CHECK(collector.wait().finish_reason == FinishReason::kLength);
  CHECK_EQ(at_rest(manager).free_blocks, info.num_blocks);
}

TEST_MAIN()
