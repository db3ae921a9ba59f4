#include "common/thread_pool.h"

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <stdexcept>

#include "check.h"
#include "common/available_cpus.h"

using namespace inflight;

namespace {

double process_cpu_seconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A control-group file system in a folder that is removed at the end.
class FakeControlGroups {
 public:
  FakeControlGroups() {
    std::string name = (std::filesystem::temp_directory_path() / "thread_pool_test.XXXXXX").string();
    CHECK(mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  ~FakeControlGroups() { std::filesystem::remove_all(root_); }
  void write(const std::filesystem::path& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
  }
  std::optional<double> quota(const std::string& membership) { return cgroup_cpu_quota(membership, root_); }

 private:
  std::filesystem::path root_;
};

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

TEST(an_idle_pool_uses_no_cpu) {
  ThreadPool pool(4);
  pool.parallel_for(100, [](int64_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const double before = process_cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  CHECK(process_cpu_seconds() - before < 0.02);
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

TEST(the_cpu_quota_is_the_smallest_along_the_control_groups) {
  FakeControlGroups groups;
  groups.write("a/cpu.max", "400000 100000");
  groups.write("a/b/cpu.max", "max 100000");
  groups.write("a/b/c/cpu.max", "150000 100000");
  CHECK(groups.quota("0::/a/b/c\n") == 1.5);
  CHECK(groups.quota("0::/a/b\n") == 4.0);
  CHECK(groups.quota("0::/\n") == std::nullopt);
  CHECK(groups.quota("0::/not/here\n") == std::nullopt);
  CHECK(groups.quota("") == std::nullopt);
  CHECK(groups.quota("nonsense\n") == std::nullopt);
}

TEST(the_cpu_quota_of_version_1_is_read) {
  FakeControlGroups groups;
  groups.write("cpu/cpu.cfs_quota_us", "-1");
  groups.write("cpu/cpu.cfs_period_us", "100000");
  groups.write("cpu/job/cpu.cfs_quota_us", "50000");
  groups.write("cpu/job/cpu.cfs_period_us", "100000");
  CHECK(groups.quota("5:memory:/job\n4:cpu,cpuacct:/job\n") == 0.5);
  CHECK(groups.quota("4:cpu,cpuacct:/\n") == std::nullopt);
  CHECK(groups.quota("4:cpuset:/job\n") == std::nullopt);
}

TEST_MAIN()
