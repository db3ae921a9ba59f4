#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "triton/handles.h"

namespace inflight::triton {

// The model that metrics belong to: their labels `model` and `version`.
struct MetricOwner {
  std::string model;
  uint64_t version;
};

// A family of Prometheus metrics: what /metrics prints under one name.
struct MetricFamilyInfo {
  TRITONSERVER_MetricKind kind;
  const char* name;
  const char* description;
};

// One model's metrics of one family. They differ in the value of one more label, or, without it, are only one.
class MetricGroup {
 public:
  MetricGroup(const MetricOwner& owner, const MetricFamilyInfo& family, const char* label,
              const std::vector<const char*>& label_values, const std::vector<double>& buckets = {});
  MetricGroup(const MetricGroup&) = delete;
  MetricGroup& operator=(const MetricGroup&) = delete;

 protected:
  ~MetricGroup();
  TRITONSERVER_Metric* metric(size_t index) const { return metrics_[index].get(); }
  size_t size() const { return metrics_.size(); }

 private:
  MetricGroup() = default;

  std::shared_ptr<TRITONSERVER_MetricFamily> family_;
  std::vector<MetricHandle> metrics_;
};

class Gauges : private MetricGroup {
 public:
  Gauges(const MetricOwner& owner, const char* name, const char* description, const char* label,
         const std::vector<const char*>& label_values);

  // One value for each value of the label.
  template <class... Values>
  void set(Values... values) noexcept {
    set_all({static_cast<double>(values)...});
  }

 private:
  void set_all(std::initializer_list<double> values) noexcept;
};

class Counters : private MetricGroup {
 public:
  Counters(const MetricOwner& owner, const char* name, const char* description, const char* label,
           const std::vector<const char*>& label_values);

  // What has been counted since the start, which never falls; one value for each value of the label.
  void set_totals(std::initializer_list<uint64_t> totals) noexcept;
  void increment(size_t index) noexcept;

 private:
  std::vector<uint64_t> totals_;
};

class Histogram : private MetricGroup {
 public:
  // `buckets` rise; each is the upper bound of one.
  Histogram(const MetricOwner& owner, const char* name, const char* description, const std::vector<double>& buckets,
            const char* label = nullptr, const char* label_value = nullptr);

  void observe(double value) noexcept;
};

}  // namespace inflight::triton
