#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/control_groups.h"

namespace inflight {

// Bytes of memory that this process can have at most: the machine's, and no more than its control groups'
// limit. What others use of them is not taken off.
int64_t memory_limit();

// The smallest memory limit of `groups`, in bytes; none when unlimited.
std::optional<int64_t> memory_limit(const std::vector<ControlGroup>& groups);

}  // namespace inflight
