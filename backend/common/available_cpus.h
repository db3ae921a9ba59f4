#pragma once

#include <optional>
#include <vector>

#include "common/control_groups.h"

namespace inflight {

// CPUs that this process may use, >= 1: those of its affinity mask, and no more than its control
// groups' CPU quota, rounded up, pays for.
int available_cpus();

// The smallest CPU quota of `groups`, in CPUs; none when unlimited.
std::optional<double> cpu_quota(const std::vector<ControlGroup>& groups);

}  // namespace inflight
