#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <string_view>
#include <vector>

#include "common/available_cpus.h"
#include "common/near_miss.h"
#include "python/bindings.h"

namespace {

std::string near_miss(std::string_view name, const std::vector<std::string>& known) {
  const std::vector<std::string_view> names(known.begin(), known.end());
  return std::string(inflight::near_miss(name, names));
}

}  // namespace

NB_MODULE(_native, module) {
  module.doc() = "The C++ libraries under the Triton backend, as inflight.llm, the benchmarks and the tests use them.";
  // What a program still holds when it exits is closed by an atexit callback (batch_manager.cc) and
  // freed with the process: nothing to warn its user about.
  nanobind::set_leak_warnings(false);
  module.def(
      "available_cpus", &inflight::available_cpus,
      "CPUs that this process may use, by its affinity and its control groups; an engine starts a thread on each.");
  module.def("near_miss", near_miss, nanobind::arg("name"), nanobind::arg("known"),
             "The name of `known` that `name` is a slip of the pen away from, or an empty string.");
  inflight::python::bind_errors(module);
  inflight::python::bind_packing(module);
  inflight::python::bind_responses(module);
  inflight::python::bind_batch_manager(module);
  inflight::python::bind_engine(module);
  inflight::python::bind_token_texts(module);
}
