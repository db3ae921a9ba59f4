#include "common/control_groups.h"

#include <fstream>
#include <iterator>
#include <sstream>

namespace inflight {
namespace {

bool lists(const std::string& controllers, const std::string& controller) {
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');) {
    if (name == controller) return true;
  }
  return false;
}

}  // namespace

std::vector<ControlGroup> control_groups(const std::string& controller, const std::string& membership,
                                         const std::filesystem::path& root) {
  std::vector<ControlGroup> groups;
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {  // hierarchy:controllers:/path; version 2: 0::/path
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool is_v2 = controllers.empty();
    if (!is_v2 && !lists(controllers, controller)) continue;

    const auto mount = is_v2 ? root : root / controller;
    auto group = std::filesystem::path(line.substr(second + 1)).relative_path();
    // In a container the path may be the host's and so not exist here; its ancestors do.
    while (true) {
      groups.push_back({mount / group, is_v2 ? 2 : 1});
      if (group.empty()) break;
      group = group.parent_path();
    }
  }
  return groups;
}

std::vector<ControlGroup> control_groups(const std::string& controller) {
  std::ifstream file("/proc/self/cgroup");
  const std::string membership(std::istreambuf_iterator<char>(file), {});
  return control_groups(controller, membership, "/sys/fs/cgroup");
}

}  // namespace inflight
