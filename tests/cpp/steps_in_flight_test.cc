// The next step is launched before the last one's tokens are known; nobody sees a difference.

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "check.h"
#include "collector.h"
#include "common/logging.h"
#include "delayed_engine.h"
#include "paged_engine.h"

using namespace inflight;
using namespace inflight::test;
using namespace std::chrono_literals;

namespace {

// A paged engine that is a device of its own; the hooks of `paged` are called from its thread.
struct Device {
  explicit Device(int32_t max_steps_in_flight, EngineInfo info = small_engine())
      : Device(std::make_unique<PagedEngine>(std::move(info)), max_steps_in_flight) {}
  Device(std::unique_ptr<PagedEngine> engine, int32_t max_steps_in_flight)
      : paged(*engine), delayed(new DelayedEngine(std::move(engine), max_steps_in_flight, 200us)), owner(delayed) {}

  PagedEngine& paged;
  DelayedEngine* delayed;
  std::unique_ptr<Engine> owner;
};

std::vector<int32_t> expected_tokens(const std::vector<int32_t>& prompt, int32_t count) {
  return PagedEngine::expected_tokens(prompt, count, 1000);
}

// Holds a device's steps back until it is opened.
class Gate {
 public:
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_open_; });
  }
  void open() {
    std::lock_guard lock(mutex_);
    is_open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_open_ = false;
};

}  // namespace

TEST(every_request_gets_its_tokens_however_many_steps_are_in_flight) {
  for (const int32_t in_flight : {1, 2, 3}) {
    for (uint32_t seed = 0; seed < 8; ++seed) {
      std::mt19937 random(seed);
      EngineInfo info = small_engine();
      info.max_batch_size = 1 + random() % 6;
      info.max_num_tokens = 6 + random() % 20;
      info.num_blocks = 16 + random() % 20;
      Device device(in_flight, info);
      DelayedEngine& delayed = *device.delayed;
      BatchManagerOptions options;
      options.enable_kv_cache_reuse = seed % 2 == 0;
      if (seed % 4 > 1) options.scheduler_policy = SchedulerPolicy::kMaxUtilization;
      BatchManager manager(std::move(device.owner), options);
      std::vector<Collector> collectors(20);
      std::vector<Request> requests;
      for (auto& collector : collectors) {
        const int32_t prompt = 1 + random() % 30;
        Request request = make_request(random_tokens(random, prompt), 1 + random() % (64 - prompt), random() % 2 == 0);
        const auto all = expected_tokens(request.input_ids, request.max_new_tokens);
        if (random() % 3 == 0) request.sampling.end_ids = {all[random() % all.size()]};
        if (random() % 3 == 0) request.stop_words = {{all[random() % all.size()]}};
        if (random() % 3 == 0) {
          request.draft_tokens.assign(all.begin(), all.begin() + std::min<size_t>(all.size(), 1 + random() % 4));
          if (random() % 2 == 0) request.draft_tokens.back() = (request.draft_tokens.back() + 1) % 1000;
        }
        requests.push_back(request);
        manager.submit(request, collector.callback());
      }
      for (size_t i = 0; i < collectors.size(); ++i) {
        const Response& last = collectors[i].wait();
        CHECK(!last.error);
        const auto all = expected_tokens(requests[i].input_ids, requests[i].max_new_tokens);
        const auto& ends = requests[i].sampling.end_ids;
        size_t length = std::find(all.begin(), all.end(), ends.front()) - all.begin();
        if (!requests[i].stop_words.empty()) {
          const auto word = std::find(all.begin(), all.end(), requests[i].stop_words[0][0]);
          if (word != all.end()) length = std::min<size_t>(length, word - all.begin() + 1);
        }
        CHECK(collectors[i].tokens() == std::vector<int32_t>(all.begin(), all.begin() + length));
      }
      CHECK_EQ(delayed.most_in_flight.load(), in_flight);
      CHECK_EQ(at_rest(manager).free_blocks, info.num_blocks);
    }
  }
}

TEST(a_failed_step_ends_who_was_in_it_and_the_next_one_goes_on_without_them) {
  set_log_sink([](LogLevel, const std::string&) {});
  for (const int32_t in_flight : {1, 2, 3}) {
    Device device(in_flight);
    std::atomic<int> steps_to_failure = 0;
    std::atomic<int> failed_steps = 0;
    device.paged.before_finish = [&](const StepInput& input) {
      if (input.slices.empty() || steps_to_failure == 0 || --steps_to_failure > 0) return;
      ++failed_steps;
      throw_error(ErrorCode::kInternal, "a step failed");
    };
    BatchManager manager(std::move(device.owner), {});
    for (int round = 0; round < 10; ++round) {
      Collector failing, next;
      steps_to_failure = 10;
      manager.submit(make_request({1, 2}, 60), failing.callback());
      const Response& last = failing.wait();
      CHECK(last.error && std::string(last.error->what()) == "a step failed");
      CHECK(failing.tokens() == expected_tokens({1, 2}, static_cast<int32_t>(failing.tokens().size())));
      manager.submit(make_request({3, 4}, 5), next.callback());
      CHECK(!next.wait().error);
      CHECK(next.tokens() == expected_tokens({3, 4}, 5));
    }
    CHECK_EQ(failed_steps.load(), 10);
    CHECK_EQ(at_rest(manager).free_blocks, 40);
  }
}

TEST(a_cancelled_request_gives_its_slot_and_blocks_to_another_while_its_steps_run) {
  for (const int32_t in_flight : {2, 3}) {
    EngineInfo info = small_engine();
    info.max_batch_size = 1;
    info.num_blocks = 16;  // one sequence
    Device device(in_flight, info);
    std::vector<Gate> gates(20);  // of each round: closed until its request is cancelled
    std::atomic<int> round = 0, steps = 0;
    device.paged.before_run = [&](const StepInput&) {
      if (++steps == 10) gates[round].wait();
    };
    BatchManager manager(std::move(device.owner), {});
    for (; round < 20; ++round) {
      Collector cancelled, next;
      steps = 0;
      const RequestId id = manager.submit(make_request({1, round}, 60), cancelled.callback());
      manager.submit(make_request({2, round}, 20), next.callback());
      while (cancelled.responses() == 0) std::this_thread::sleep_for(50us);
      manager.cancel(id);
      gates[round].open();
      CHECK(next.wait().finish_reason == FinishReason::kLength);
      CHECK(next.tokens() == expected_tokens({2, round}, 20));
      CHECK(cancelled.wait().finish_reason == FinishReason::kCancelled);
      CHECK(cancelled.tokens() == expected_tokens({1, round}, static_cast<int32_t>(cancelled.tokens().size())));
    }
    CHECK_EQ(at_rest(manager).free_blocks, 16);
  }
}

TEST(who_needs_its_tokens_has_one_step_in_flight_and_others_go_on) {
  for (const bool looks_up_drafts : {false, true}) {
    EngineInfo info = small_engine();
    info.max_beam_width = 2;
    info.num_blocks = 80;
    Device device(3, info);
    DelayedEngine& delayed = *device.delayed;
    // The first request to be set up needs its tokens; the second does not. No step runs until both are there.
    Gate gate;
    int32_t first_slot = -1;
    std::atomic<int> steps_without_first = 0;
    device.paged.before_run = [&](const StepInput& input) {
      gate.wait();
      if (first_slot < 0) first_slot = input.setups.front().slot;
      bool has_first = false;
      for (const SequenceSlice& slice : input.slices) {
        if (slice.slot != first_slot) continue;
        has_first = true;
        if (slice.tokens.front() == kPreviousToken) throw_error(ErrorCode::kInternal, "its tokens are not known");
      }
      steps_without_first += has_first ? 0 : 1;
    };
    BatchManagerOptions options;
    if (looks_up_drafts) options.prompt_lookup.max_draft_tokens = 3;
    BatchManager manager(std::move(device.owner), options);
    Collector first, other;
    Request request = make_request({5, 6, 7, 5, 6, 7}, 30, /*streaming=*/false);
    if (!looks_up_drafts) request.beam_search.beam_width = 2;
    manager.submit(request, first.callback());
    request = make_request({1, 2, 3}, 60);
    request.num_draft_tokens = 0;
    manager.submit(request, other.callback());
    gate.open();
    const Response& last = first.wait();
    CHECK(!last.error);
    CHECK_EQ(last.beams.size(), looks_up_drafts ? 0u : 1u);
    CHECK(!other.wait().error);
    CHECK(other.tokens() == expected_tokens({1, 2, 3}, 60));
    if (looks_up_drafts) CHECK(first.tokens() == expected_tokens({5, 6, 7, 5, 6, 7}, 30));
    CHECK(steps_without_first > 0);
    CHECK_EQ(delayed.most_in_flight.load(), 3);
    CHECK_EQ(at_rest(manager).free_blocks, 80);
  }
}

TEST(a_lost_engine_ends_every_request_with_the_reason_and_takes_no_other) {
  set_log_sink([](LogLevel, const std::string&) {});
  for (const int32_t in_flight : {1, 2}) {
    Device device(in_flight);
    Gate gate;
    device.paged.before_run = [&, steps = 0](const StepInput&) mutable {
      if (++steps < 3) return;
      gate.wait();
      throw_error(ErrorCode::kEngineLost, "the device has fallen off the bus");
    };
    std::mutex mutex;
    std::vector<std::string> lost;
    BatchManagerOptions options;
    options.on_engine_lost = [&](const Error& error) {
      std::lock_guard lock(mutex);
      lost.emplace_back(error.what());
    };
    {
      std::vector<Collector> collectors(12);  // some run, others wait
      BatchManager manager(std::move(device.owner), options);
      for (auto& collector : collectors) manager.submit(make_request({1, 2}, 50), collector.callback());
      gate.open();
      for (auto& collector : collectors) {
        const Response& last = collector.wait();
        CHECK(last.error && last.error->code() == ErrorCode::kEngineLost);
        CHECK(std::string(last.error->what()).find("fallen off the bus") != std::string::npos);
      }
      Collector late;
      CHECK_ERROR(manager.submit(make_request({1}, 1), late.callback()), ErrorCode::kEngineLost, "fallen off the bus");
      CHECK_EQ(at_rest(manager).free_blocks, 40);
    }
    CHECK_EQ(lost.size(), 1u);
  }
}

TEST_MAIN()
