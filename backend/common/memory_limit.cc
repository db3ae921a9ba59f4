#include "common/memory_limit.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace inflight {

std::optional<int64_t> memory_limit(const std::vector<ControlGroup>& groups) {
  std::optional<int64_t> smallest;
  for (const ControlGroup& group : groups) {
    // A group without a limit has "max" (version 2) or the largest number of whole pages.
    int64_t limit;
    std::ifstream file(group.folder / (group.version == 2 ? "memory.max" : "memory.limit_in_bytes"));
    if (file >> limit && (!smallest || limit < *smallest)) smallest = limit;
  }
  return smallest;
}

int64_t memory_limit() {
  const int64_t machine = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  return std::min(machine, memory_limit(control_groups("memory")).value_or(machine));
}

}  // namespace inflight
