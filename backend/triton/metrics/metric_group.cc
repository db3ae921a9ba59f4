#include "triton/metrics/metric_group.h"

#include <map>
#include <mutex>

#include "triton/errors.h"

namespace inflight::triton {
namespace {

using SharedFamily = std::shared_ptr<TRITONSERVER_MetricFamily>;

// Held while anything is made or deleted. A model that is loaded anew has the same metrics as the one that it replaces,
// which Triton unloads meanwhile, on another thread: Triton counts the users of a metric, but finds it and counts one
// more user in two steps, so that it may be freed in between. And a family may only be made when no other of its name
// is about to be deleted.
std::mutex& registry_mutex() {
  static std::mutex mutex;
  return mutex;
}

// One object for each name in the whole process: a family counts the users of its metrics and frees each with the last.
// The caller holds registry_mutex(), and also when it lets go of the family.
SharedFamily shared_family(const MetricFamilyInfo& info) {
  static std::map<std::string, std::weak_ptr<TRITONSERVER_MetricFamily>> families;
  auto& known = families[info.name];
  if (SharedFamily family = known.lock()) return family;
  TRITONSERVER_MetricFamily* handle;
  check(TRITONSERVER_MetricFamilyNew(&handle, info.kind, info.name, info.description));
  SharedFamily family(handle, MetricFamilyDeleter());
  known = family;
  return family;
}

ParameterHandle label(const char* name, const char* value) {
  return ParameterHandle(TRITONSERVER_ParameterNew(name, TRITONSERVER_PARAMETER_STRING, value));
}

MetricArgsHandle histogram_args(const std::vector<double>& buckets) {
  TRITONSERVER_MetricArgs* handle;
  check(TRITONSERVER_MetricArgsNew(&handle));
  MetricArgsHandle args(handle);
  check(TRITONSERVER_MetricArgsSetHistogram(handle, buckets.data(), buckets.size()));
  return args;
}

}  // namespace

// Delegates, so that the destructor runs when this throws: it takes the lock that is released by then.
MetricGroup::MetricGroup(const MetricOwner& owner, const MetricFamilyInfo& family, const char* label_name,
                         const std::vector<const char*>& label_values, const std::vector<double>& buckets)
    : MetricGroup() {
  const MetricArgsHandle args = buckets.empty() ? nullptr : histogram_args(buckets);
  const ParameterHandle model = label("model", owner.model.c_str());
  const ParameterHandle version = label("version", std::to_string(owner.version).c_str());
  std::lock_guard lock(registry_mutex());
  family_ = shared_family(family);
  const auto add = [&](std::vector<const TRITONSERVER_Parameter*> labels) {
    TRITONSERVER_Metric* metric;
    check(TRITONSERVER_MetricNewWithArgs(&metric, family_.get(), labels.data(), labels.size(), args.get()));
    metrics_.emplace_back(metric);
  };
  if (label_name == nullptr) add({model.get(), version.get()});
  for (const char* value : label_values) add({model.get(), version.get(), label(label_name, value).get()});
}

MetricGroup::~MetricGroup() {
  std::lock_guard lock(registry_mutex());
  metrics_.clear();
  family_.reset();
}

Gauges::Gauges(const MetricOwner& owner, const char* name, const char* description, const char* label,
               const std::vector<const char*>& label_values)
    : MetricGroup(owner, {TRITONSERVER_METRIC_KIND_GAUGE, name, description}, label, label_values) {}

void Gauges::set_all(std::initializer_list<double> values) noexcept {
  size_t index = 0;
  for (const double value : values) log_if_error(TRITONSERVER_MetricSet(metric(index++), value));
}

Counters::Counters(const MetricOwner& owner, const char* name, const char* description, const char* label,
                   const std::vector<const char*>& label_values)
    : MetricGroup(owner, {TRITONSERVER_METRIC_KIND_COUNTER, name, description}, label, label_values), totals_(size()) {}

void Counters::set_totals(std::initializer_list<uint64_t> totals) noexcept {
  size_t index = 0;
  for (const uint64_t total : totals) {
    uint64_t& reported = totals_[index];
    if (total > reported)
      log_if_error(TRITONSERVER_MetricIncrement(metric(index), static_cast<double>(total - reported)));
    reported = total;
    ++index;
  }
}

void Counters::increment(size_t index) noexcept { log_if_error(TRITONSERVER_MetricIncrement(metric(index), 1.0)); }

Histogram::Histogram(const MetricOwner& owner, const char* name, const char* description,
                     const std::vector<double>& buckets, const char* label, const char* label_value)
    : MetricGroup(owner, {TRITONSERVER_METRIC_KIND_HISTOGRAM, name, description}, label,
                  label == nullptr ? std::vector<const char*>() : std::vector{label_value}, buckets) {}

void Histogram::observe(double value) noexcept { log_if_error(TRITONSERVER_MetricObserve(metric(0), value)); }

}  // namespace inflight::triton
