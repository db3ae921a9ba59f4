#include "batch_manager/guided/code_points.h"

#include <algorithm>
#include <utility>

namespace inflight {
namespace {

std::vector<CodePointRange> joined(std::vector<CodePointRange> ranges) {
  std::ranges::sort(ranges, {}, &CodePointRange::first);
  std::vector<CodePointRange> result;
  for (const CodePointRange& range : ranges) {
    if (!result.empty() && range.first <= result.back().last + 1) {
      result.back().last = std::max(result.back().last, range.last);
    } else {
      result.push_back(range);
    }
  }
  return result;
}

}  // namespace

CodePoints::CodePoints(std::initializer_list<CodePointRange> ranges) : ranges_(joined(ranges)) {}

bool CodePoints::contains(int32_t code_point) const {
  const auto range = std::ranges::lower_bound(ranges_, code_point, {}, &CodePointRange::last);
  return range != ranges_.end() && range->first <= code_point;
}

CodePoints CodePoints::operator|(const CodePoints& other) const {
  std::vector<CodePointRange> ranges = ranges_;
  ranges.insert(ranges.end(), other.ranges_.begin(), other.ranges_.end());
  CodePoints result;
  result.ranges_ = joined(std::move(ranges));
  return result;
}

CodePoints CodePoints::operator&(const CodePoints& other) const {
  CodePoints result;
  for (auto a = ranges_.begin(), b = other.ranges_.begin(); a != ranges_.end() && b != other.ranges_.end();) {
    const CodePointRange both{std::max(a->first, b->first), std::min(a->last, b->last)};
    if (both.first <= both.last) result.ranges_.push_back(both);
    (a->last < b->last ? a : b)++;
  }
  return result;
}

CodePoints CodePoints::operator~() const {
  CodePoints gaps;
  int32_t next = 0;
  for (const CodePointRange& range : ranges_) {
    if (range.first > next) gaps.ranges_.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  gaps.ranges_.push_back({next, 0x10ffff});
  return all() & gaps;
}

}  // namespace inflight
