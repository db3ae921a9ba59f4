#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace inflight {

// CPUs that this process may use, >= 1: those of its affinity mask, and no more than its control
// groups' CPU quota (versions 1 and 2), rounded up, pays for.
int available_cpus();

// The smallest CPU quota along this process's control groups, in CPUs; none when unlimited.
// `membership` is the text of /proc/self/cgroup, `root` the folder where control groups are mounted.
std::optional<double> cgroup_cpu_quota(const std::string& membership, const std::filesystem::path& root);

}  // namespace inflight
