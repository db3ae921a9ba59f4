#include "common/available_cpus.h"
#include "python/bindings.h"

NB_MODULE(_native, module) {
  module.doc() = "The C++ libraries under the Triton backend, as inflight.llm, the benchmarks and the tests use them.";
  // What a program still holds when it exits is closed by an atexit callback (batch_manager.cc) and
  // freed with the process: nothing to warn its user about.
  nanobind::set_leak_warnings(false);
  module.def(
      "available_cpus", &inflight::available_cpus,
      "CPUs that this process may use, by its affinity and its control groups; an engine starts a thread on each.");
  inflight::python::bind_errors(module);
  inflight::python::bind_packing(module);
  inflight::python::bind_responses(module);
  inflight::python::bind_batch_manager(module);
  inflight::python::bind_engine(module);
  inflight::python::bind_token_texts(module);
}
