#include "common/thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "check.h"
#include "common/available_cpus.h"

using namespace inflight;

namespace {

struct ThreadStatus {
  char state = 0;                  // 'R' running, 'S' asleep
  int64_t voluntary_switches = 0;  // times that it went to sleep
  bool operator==(const ThreadStatus&) const = default;
};

using Threads = std::map<std::string, ThreadStatus>;  // by id

// All threads of this process but the calling one and the known ones, such as a sanitizer's own.
Threads other_threads(const Threads& known = {}) {
  Threads threads;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    const std::string id = task.path().filename();
    if (id == std::to_string(gettid()) || known.count(id) > 0) continue;
    ThreadStatus& status = threads[id];
    std::ifstream file(task.path() / "status");
    for (std::string field; file >> field; std::getline(file, field)) {
      if (field == "State:") file >> status.state;
      if (field == "voluntary_ctxt_switches:") file >> status.voluntary_switches;
    }
  }
  return threads;
}

// Whether all other threads but the known ones sleep through 100 ms, once they have had time to fall asleep.
bool others_sleep(const Threads& known) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    const Threads before = other_threads(known);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const bool asleep = std::ranges::all_of(before, [](const auto& thread) { return thread.second.state == 'S'; });
    if (asleep && other_threads(known) == before) return true;
  }
  return false;
}

}  // namespace

TEST(every_index_is_visited_exactly_once) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK_EQ(pool.size(), threads);
    for (const int64_t count : {0, 1, 2, 3, 7, 100, 1000}) {
      std::vector<std::atomic<int>> visits(count);
      pool.parallel_for(count, [&](int64_t index) { visits[index].fetch_add(1); });
      for (const auto& visit : visits) CHECK_EQ(visit.load(), 1);
    }
  }
}

TEST(writes_of_one_loop_are_seen_by_the_next) {
  ThreadPool pool(4);
  std::vector<int64_t> values(64, 0);  // not atomic
  constexpr int64_t kRounds = 20000;
  for (int64_t round = 0; round < kRounds; ++round) {
    pool.parallel_for(static_cast<int64_t>(values.size()),
                      [&](int64_t index) { values[(index * 7 + round) % values.size()] += 1; });
  }
  for (const int64_t value : values) CHECK_EQ(value, kRounds);
}

TEST(thread_numbers_are_distinct_and_in_range) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> busy(4);
  for (int round = 0; round < 200; ++round) {
    pool.parallel_for(32, [&](int64_t, int thread) {
      CHECK(thread >= 0 && thread < 4);
      CHECK_EQ(busy[thread].fetch_add(1), 0);
      busy[thread].fetch_sub(1);
    });
  }
}

TEST(an_exception_reaches_the_caller_and_the_pool_goes_on) {
  ThreadPool pool(3);
  for (int round = 0; round < 200; ++round) {
    CHECK_ERROR(pool.parallel_for(100,
                                  [&](int64_t index) {
                                    if (index == round % 100) throw Error(ErrorCode::kInternal, "body failed");
                                  }),
                ErrorCode::kInternal, "body failed");
    std::atomic<int> visits{0};
    pool.parallel_for(10, [&](int64_t) { visits.fetch_add(1); });
    CHECK_EQ(visits.load(), 10);
  }
}

TEST(loops_after_a_pause_wake_the_workers) {
  ThreadPool pool(2);
  for (int round = 0; round < 50; ++round) {
    std::this_thread::sleep_for(std::chrono::microseconds(round * 20));
    std::atomic<int64_t> sum{0};
    pool.parallel_for(100, [&](int64_t index) { sum.fetch_add(index); });
    CHECK_EQ(sum.load(), 4950);
  }
}

TEST(the_workers_of_an_idle_pool_sleep) {
  const Threads known = other_threads();
  ThreadPool pool(4);
  pool.parallel_for(100, [](int64_t) {});
  CHECK_EQ(other_threads(known).size(), 3u);
  CHECK(others_sleep(known));
}

TEST(pools_start_and_stop_at_any_time) {
  for (int round = 0; round < 200; ++round) {
    ThreadPool pool(1 + round % 5);
    if (round % 2 == 0) pool.parallel_for(3, [](int64_t) {});
  }
}

TEST(a_negative_size_is_refused_and_zero_means_the_available_cpus) {
  CHECK_ERROR(ThreadPool(-1), ErrorCode::kInvalidArgument, "num_threads is -1");
  CHECK_EQ(ThreadPool(0).size(), available_cpus());
  CHECK(available_cpus() >= 1);
}

TEST_MAIN()
