#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace inflight {

// The folder of a control group, and the version of the hierarchy that it belongs to: 1 or 2.
struct ControlGroup {
  std::filesystem::path folder;
  int version;
};

// The control groups whose settings of `controller` ("cpu", "memory") apply to a process: its own and their
// ancestors. Some may not exist. `membership` is the text of /proc/PID/cgroup, `root` the folder where control
// groups are mounted.
std::vector<ControlGroup> control_groups(const std::string& controller, const std::string& membership,
                                         const std::filesystem::path& root);

// Those of this process.
std::vector<ControlGroup> control_groups(const std::string& controller);

}  // namespace inflight
