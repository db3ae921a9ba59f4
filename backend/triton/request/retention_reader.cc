#include "triton/request/retention_reader.h"

#include "common/error.h"

namespace inflight::triton {
namespace {

constexpr int32_t kNone = -1;
constexpr const char* kStarts = "retention_token_range_starts";
constexpr const char* kEnds = "retention_token_range_ends";
constexpr const char* kPriorities = "retention_token_range_priorities";
constexpr const char* kDurations = "retention_token_range_durations_ms";

std::optional<std::chrono::milliseconds> duration(int32_t milliseconds) {
  if (milliseconds == kNone) return std::nullopt;
  return std::chrono::milliseconds(milliseconds);
}

std::vector<int32_t> read_list(const SequenceTensors& tensors, const char* name) {
  return tensors.list<int32_t>(name).value_or(std::vector<int32_t>());
}

void check_count(const char* name, const std::vector<int32_t>& values, size_t ranges) {
  if (values.size() == ranges) return;
  throw_error(ErrorCode::kInvalidArgument, name, " has ", values.size(), " values, and ", kStarts, " has ", ranges,
              "; each range needs one of both");
}

}  // namespace

KvCacheRetention read_retention(const SequenceTensors& tensors) {
  const auto starts = read_list(tensors, kStarts);
  const auto ends = read_list(tensors, kEnds);
  const auto priorities = read_list(tensors, kPriorities);
  auto durations = read_list(tensors, kDurations);
  check_count(kEnds, ends, starts.size());
  check_count(kPriorities, priorities, starts.size());
  if (durations.empty()) durations.assign(starts.size(), kNone);
  check_count(kDurations, durations, starts.size());

  KvCacheRetention retention;
  for (size_t i = 0; i < starts.size(); ++i) {
    const auto end = ends[i] == kNone ? std::nullopt : std::optional(ends[i]);
    retention.ranges.push_back({starts[i], end, priorities[i], duration(durations[i])});
  }
  tensors.read(retention.decode_priority, "retention_decode_priority");
  retention.decode_duration = duration(tensors.scalar<int32_t>("retention_decode_duration_ms").value_or(kNone));
  return retention;
}

}  // namespace inflight::triton
