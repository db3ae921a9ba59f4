#include "common/available_cpus.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>

namespace inflight {
namespace {

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// cpu.max holds "max 100000" or "150000 100000": quota and period in microseconds.
std::optional<double> quota_v2(const std::filesystem::path& group) {
  std::istringstream text(read_text(group / "cpu.max"));
  double quota, period;
  if (text >> quota >> period && quota > 0 && period > 0) return quota / period;
  return std::nullopt;
}

// cpu.cfs_quota_us holds -1 when unlimited.
std::optional<double> quota_v1(const std::filesystem::path& group) {
  std::istringstream quota_text(read_text(group / "cpu.cfs_quota_us"));
  std::istringstream period_text(read_text(group / "cpu.cfs_period_us"));
  double quota, period;
  if (quota_text >> quota && period_text >> period && quota > 0 && period > 0) return quota / period;
  return std::nullopt;
}

std::optional<double> smaller(std::optional<double> a, std::optional<double> b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

bool lists_cpu(const std::string& controllers) {
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');) {
    if (name == "cpu") return true;
  }
  return false;
}

}  // namespace

std::optional<double> cgroup_cpu_quota(const std::string& membership, const std::filesystem::path& root) {
  std::optional<double> quota;
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {  // hierarchy:controllers:/path; version 2: 0::/path
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool is_v2 = controllers.empty();
    if (!is_v2 && !lists_cpu(controllers)) continue;

    const auto mount = is_v2 ? root : root / "cpu";
    auto group = std::filesystem::path(line.substr(second + 1)).relative_path();
    // In a container the path may be the host's and so not exist here; its ancestors do.
    while (true) {
      quota = smaller(quota, is_v2 ? quota_v2(mount / group) : quota_v1(mount / group));
      if (group.empty()) break;
      group = group.parent_path();
    }
  }
  return quota;
}

int available_cpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t affinity;
  if (sched_getaffinity(0, sizeof affinity, &affinity) == 0) cpus = CPU_COUNT(&affinity);
  if (const auto quota = cgroup_cpu_quota(read_text("/proc/self/cgroup"), "/sys/fs/cgroup")) {
    cpus = std::min(cpus, static_cast<int>(std::ceil(*quota)));
  }
  return std::max(cpus, 1);
}

}  // namespace inflight
