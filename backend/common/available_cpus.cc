#include "common/available_cpus.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <thread>

namespace inflight {
namespace {

// Quota and period, in microseconds; a group without a quota has "max" (version 2) or -1 instead of a number.
std::optional<double> cpu_quota(const ControlGroup& group) {
  double quota, period;
  bool is_read;
  if (group.version == 2) {
    is_read = static_cast<bool>(std::ifstream(group.folder / "cpu.max") >> quota >> period);
  } else {
    is_read = std::ifstream(group.folder / "cpu.cfs_quota_us") >> quota &&
              std::ifstream(group.folder / "cpu.cfs_period_us") >> period;
  }
  if (!is_read || quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

}  // namespace

std::optional<double> cpu_quota(const std::vector<ControlGroup>& groups) {
  std::optional<double> smallest;
  for (const ControlGroup& group : groups) {
    const std::optional<double> quota = cpu_quota(group);
    if (quota && (!smallest || *quota < *smallest)) smallest = quota;
  }
  return smallest;
}

int available_cpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t affinity;
  if (sched_getaffinity(0, sizeof affinity, &affinity) == 0) cpus = CPU_COUNT(&affinity);
  if (const auto quota = cpu_quota(control_groups("cpu"))) {
    cpus = std::min(cpus, static_cast<int>(std::ceil(*quota)));
  }
  return std::max(cpus, 1);
}

}  // namespace inflight
