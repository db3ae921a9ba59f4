#pragma once

#include <span>
#include <string_view>

namespace inflight {

// The name of `known` that `name` is a slip of the pen away from, or empty: letters left out, added, exchanged or
// replaced, at most two in all (a replaced one counts twice), fewer in short names. Case, underscores and hyphens do
// not count.
std::string_view near_miss(std::string_view name, std::span<const std::string_view> known);

}  // namespace inflight
