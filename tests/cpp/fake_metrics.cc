#include <map>
#include <memory>
#include <mutex>

#include "check.h"
#include "fake_triton_objects.h"

using namespace inflight::test;

namespace {

// Triton finds a metric, and counts its users, in two steps, and a family likewise: it must not be asked to make or to
// delete one while it makes or deletes another.
class OneAtATime {
 public:
  OneAtATime() { CHECK(!is_busy_.exchange(true)); }
  ~OneAtATime() { is_busy_ = false; }

 private:
  static inline std::atomic<bool> is_busy_ = false;
};

// Prometheus's part: a value for each family and labels, with a count of its users.
struct Value {
  std::atomic<bool> is_alive = true;
  std::atomic<int> users = 0;
  std::atomic<double> value = 0;
};

struct Family {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Value>> values;
  std::atomic<bool> is_registered = true;
};

std::mutex families_mutex;
std::map<std::string, std::shared_ptr<Family>> families;

}  // namespace

struct TRITONSERVER_MetricArgs : Counted {};

struct TRITONSERVER_MetricFamily : Counted {
  std::string name;
  std::shared_ptr<Family> family;
  std::atomic<int> metrics = 0;
};

struct TRITONSERVER_Metric : Counted {
  TRITONSERVER_MetricFamily* family;
  std::string labels;
  std::shared_ptr<Value> value;
};

namespace {

std::string joined(const TRITONSERVER_Parameter** labels, uint64_t count) {
  std::string text;
  for (uint64_t i = 0; i < count; ++i) text += labels[i]->name + "=" + labels[i]->value + ",";
  return text;
}

TRITONSERVER_Error* use(TRITONSERVER_Metric* metric, double value) {
  CHECK(metric->value->is_alive);
  metric->value->value = value;
  return nullptr;
}

}  // namespace

extern "C" {

TRITONSERVER_Error* TRITONSERVER_MetricFamilyNew(TRITONSERVER_MetricFamily** family, TRITONSERVER_MetricKind,
                                                 const char* name, const char*) {
  const OneAtATime guard;
  *family = new TRITONSERVER_MetricFamily;
  (*family)->name = name;
  std::lock_guard lock(families_mutex);
  auto& known = families[name];
  if (known == nullptr) known = std::make_shared<Family>();
  (*family)->family = known;
  return nullptr;
}
TRITONSERVER_Error* TRITONSERVER_MetricFamilyDelete(TRITONSERVER_MetricFamily* family) {
  const OneAtATime guard;
  CHECK_EQ(family->metrics.load(), 0);
  {
    std::lock_guard lock(families_mutex);
    family->family->is_registered = false;
    families.erase(family->name);
  }
  delete family;
  return nullptr;
}
TRITONSERVER_Error* TRITONSERVER_MetricArgsNew(TRITONSERVER_MetricArgs** args) {
  *args = new TRITONSERVER_MetricArgs;
  return nullptr;
}
TRITONSERVER_Error* TRITONSERVER_MetricArgsSetHistogram(TRITONSERVER_MetricArgs*, const double*, uint64_t) {
  return nullptr;
}
TRITONSERVER_Error* TRITONSERVER_MetricArgsDelete(TRITONSERVER_MetricArgs* args) {
  delete args;
  return nullptr;
}
TRITONSERVER_Error* TRITONSERVER_MetricNewWithArgs(TRITONSERVER_Metric** metric, TRITONSERVER_MetricFamily* family,
                                                   const TRITONSERVER_Parameter** labels, uint64_t count,
                                                   const TRITONSERVER_MetricArgs*) {
  const OneAtATime guard;
  if (TRITONSERVER_Error* error = planned_failure("TRITONSERVER_MetricNewWithArgs")) return error;
  *metric = new TRITONSERVER_Metric;
  (*metric)->family = family;
  (*metric)->labels = joined(labels, count);
  Family& shared = *family->family;
  CHECK(shared.is_registered);
  {
    std::lock_guard lock(shared.mutex);
    auto& value = shared.values[(*metric)->labels];
    if (value == nullptr) value = std::make_shared<Value>();
    (*metric)->value = value;
  }
  std::lock_guard lock(shared.mutex);
  ++(*metric)->value->users;
  ++family->metrics;
  return nullptr;
}
TRITONSERVER_Error* TRITONSERVER_MetricDelete(TRITONSERVER_Metric* metric) {
  const OneAtATime guard;
  Family& shared = *metric->family->family;
  CHECK(shared.is_registered);
  {
    std::lock_guard lock(shared.mutex);
    if (--metric->value->users == 0) {
      metric->value->is_alive = false;
      shared.values.erase(metric->labels);
    }
  }
  --metric->family->metrics;
  delete metric;
  return nullptr;
}
TRITONSERVER_Error* TRITONSERVER_MetricIncrement(TRITONSERVER_Metric* metric, double value) {
  return use(metric, value);
}
TRITONSERVER_Error* TRITONSERVER_MetricSet(TRITONSERVER_Metric* metric, double value) { return use(metric, value); }
TRITONSERVER_Error* TRITONSERVER_MetricObserve(TRITONSERVER_Metric* metric, double value) { return use(metric, value); }

}  // extern "C"
