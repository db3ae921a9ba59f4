#include "common/control_groups.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "check.h"
#include "common/available_cpus.h"
#include "common/memory_limit.h"

using namespace inflight;

namespace {

// A control-group file system in a folder that is removed at the end.
class FakeControlGroups {
 public:
  FakeControlGroups() {
    std::string name = (std::filesystem::temp_directory_path() / "control_groups_test.XXXXXX").string();
    CHECK(mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  ~FakeControlGroups() { std::filesystem::remove_all(root_); }
  void write(const std::filesystem::path& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
  }
  std::optional<double> quota(const std::string& membership) {
    return cpu_quota(control_groups("cpu", membership, root_));
  }
  std::optional<int64_t> memory(const std::string& membership) {
    return memory_limit(control_groups("memory", membership, root_));
  }

 private:
  std::filesystem::path root_;
};

}  // namespace

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

TEST(the_memory_limit_is_the_smallest_along_the_control_groups) {
  FakeControlGroups groups;
  groups.write("a/memory.max", "8589934592");
  groups.write("a/b/memory.max", "max");
  groups.write("a/b/c/memory.max", "1073741824");
  CHECK(groups.memory("0::/a/b/c\n") == int64_t{1} << 30);
  CHECK(groups.memory("0::/a/b\n") == int64_t{8} << 30);
  CHECK(groups.memory("0::/\n") == std::nullopt);
}

TEST(the_memory_limit_of_a_container_that_sees_the_hosts_path_is_that_of_the_mount) {
  FakeControlGroups groups;
  groups.write("memory/memory.limit_in_bytes", "1073741824");
  CHECK(groups.memory("4:memory:/docker/0123\n2:cpu:/job\n0::/\n") == int64_t{1} << 30);
}

TEST(groups_without_a_memory_limit_of_version_1_leave_the_machines_memory) {
  FakeControlGroups groups;
  groups.write("memory/memory.limit_in_bytes", "9223372036854771712");
  CHECK(groups.memory("4:memory:/\n") == 9223372036854771712);
  CHECK(memory_limit() > 0);
  CHECK(memory_limit() <= int64_t{1} << 60);
}

TEST_MAIN()
