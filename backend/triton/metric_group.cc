#include "triton/metric_group.h"

#include <map>
#include <mutex>

#include "triton/errors.h"

namespace inflight::triton {
namespace {

using SharedFamily = std::shared_ptr<TRITONSERVER_MetricFamily>;

// One object for each name in the whole process: a family counts the users of its metrics and frees each with the last,
// and a model that is loaded anew has the same metrics as the one that it replaces.
SharedFamily shared_family(const MetricFamilyInfo& info) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<TRITONSERVER_MetricFamily>> families;
  std::lock_guard lock(mutex);
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

MetricGroup::MetricGroup(const MetricOwner& owner, const MetricFamilyInfo& family, const char* label_name,
                         const std::vector<const char*>& label_values, const std::vector<double>& buckets)
    : family_(shared_family(family)) {
  const MetricArgsHandle args = buckets.empty() ? nullptr : histogram_args(buckets);
  const ParameterHandle model = label("model", owner.model.c_str());
  const ParameterHandle version = label("version", std::to_string(owner.version).c_str());
  const auto add = [&](std::vector<const TRITONSERVER_Parameter*> labels) {
    TRITONSERVER_Metric* metric;
    check(TRITONSERVER_MetricNewWithArgs(&metric, family_.get(), labels.data(), labels.size(), args.get()));
    metrics_.emplace_back(metric);
  };
  if (label_name == nullptr) add({model.get(), version.get()});
  for (const char* value : label_values) add({model.get(), version.get(), label(label_name, value).get()});
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
