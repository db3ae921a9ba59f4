#include "batch_manager/batch_manager.h"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <exception>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "common/logging.h"
#include "python/bindings.h"
#include "python/requests.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace std::chrono_literals;

namespace inflight::python {
namespace {

// Exists while a thread, perhaps a manager's own, calls or frees what Python code has given to a manager.
class CallbackScope {
 public:
  CallbackScope() : outer_(std::exchange(active_, true)) {}
  ~CallbackScope() { active_ = outer_; }
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;

  static bool is_active() { return active_; }

 private:
  static inline thread_local bool active_ = false;
  const bool outer_;
};

// All of these are guarded by the GIL.
class PyBatchManager;
std::set<PyBatchManager*> open_managers;
std::vector<std::future<void>> closings;

// The last reference may go on one of the manager's own threads, which it joins: then another has to.
void destroy(BatchManager* manager) {
  if (CallbackScope::is_active()) {
    nb::gil_scoped_acquire gil;
    std::erase_if(closings, [](const auto& closing) { return closing.wait_for(0s) == std::future_status::ready; });
    closings.push_back(std::async(std::launch::async, [manager] { delete manager; }));
  } else if (PyGILState_Check()) {
    nb::gil_scoped_release release;  // the last callbacks need it
    delete manager;
  } else {
    delete manager;
  }
}

// Copies may be dropped by any thread, with or without the GIL.
std::shared_ptr<nb::object> share(nb::object object) {
  return {new nb::object(std::move(object)), [](nb::object* owned) {
            nb::gil_scoped_acquire gil;
            CallbackScope scope;
            delete owned;
          }};
}

void deliver(const nb::object& callback, RequestId id, const Response& response) {
  nb::gil_scoped_acquire gil;
  CallbackScope scope;
  try {
    callback(id, nb::cast(response, nb::rv_policy::copy));
  } catch (nb::python_error& error) {
    error.discard_as_unraisable(callback);
  } catch (const std::exception& exception) {
    log_error("request ", id, ": a response did not reach its callback: ", exception.what());
  }
}

class PyBatchManager {
 public:
  PyBatchManager(const std::filesystem::path& engine_dir, int32_t num_threads, int32_t max_queue_size,
                 bool enable_chunked_context, int32_t max_responses_per_second,
                 std::optional<int64_t> max_tokens_in_kv_cache) {
    nb::gil_scoped_release release;
    auto engine = load_engine(engine_dir, {num_threads, max_tokens_in_kv_cache});
    manager_.reset(
        new BatchManager(std::move(engine), {.max_queue_size = max_queue_size,
                                                    .enable_chunked_context = enable_chunked_context,
                                                    .max_responses_per_second = max_responses_per_second}),
        destroy);
    nb::gil_scoped_acquire gil;
    open_managers.insert(this);
  }
  ~PyBatchManager() { close(); }
  PyBatchManager(const PyBatchManager&) = delete;
  PyBatchManager& operator=(const PyBatchManager&) = delete;

  RequestId submit(std::vector<int32_t> input_ids, int32_t max_new_tokens, nb::object callback,
                   std::vector<std::vector<int32_t>> stop_words, bool streaming, const nb::kwargs& sampling) {
    Request request;
    request.input_ids = std::move(input_ids);
    request.max_new_tokens = max_new_tokens;
    request.sampling = parse_sampling(sampling);
    request.stop_words = std::move(stop_words);
    request.streaming = streaming;
    const auto manager = open();
    auto shared_callback = share(std::move(callback));
    nb::gil_scoped_release release;
    return manager->submit(std::move(request),
                           [callback = std::move(shared_callback)](RequestId id, const Response& response) {
                             deliver(*callback, id, response);
                           });
  }

  void cancel(RequestId id) {
    const auto manager = open();
    nb::gil_scoped_release release;
    manager->cancel(id);
  }

  nb::dict statistics() const {
    const Statistics statistics = open()->statistics();
    nb::dict result;
    result["iterations"] = statistics.iterations;
    result["active_requests"] = statistics.active_requests;
    result["queued_requests"] = statistics.queued_requests;
    result["free_blocks"] = statistics.free_blocks;
    result["total_blocks"] = statistics.total_blocks;
    result["context_tokens"] = statistics.context_tokens;
    result["generated_tokens"] = statistics.generated_tokens;
    return result;
  }

  EngineInfo info() const { return open()->engine_info(); }

  void close() {
    open_managers.erase(this);
    const auto last = std::move(manager_);
  }

 private:
  std::shared_ptr<BatchManager> open() const {
    if (!manager_) throw_error(ErrorCode::kUnavailable, "this BatchManager is closed");
    return manager_;
  }

  std::shared_ptr<BatchManager> manager_;
};

// Before the interpreter goes: no thread of ours may wait for the GIL after that.
void close_all() {
  while (!open_managers.empty()) (*open_managers.begin())->close();
  auto last = std::move(closings);
  nb::gil_scoped_release release;
  last.clear();  // waits for them
}

}  // namespace

void bind_batch_manager(nb::module_& module) {
  nb::class_<PyBatchManager>(module, "BatchManager", R"(In-flight batching over the engine in engine_dir.

num_threads: of the CPU engine; 0: the CPUs that this process may use. max_queue_size: requests that may
wait to be scheduled; 0: any number. max_tokens_in_kv_cache: instead of the engine's kv_cache_bytes.)")
      .def(nb::init<const std::filesystem::path&, int32_t, int32_t, bool, int32_t, std::optional<int64_t>>(),
           "engine_dir"_a, "num_threads"_a = 0, "max_queue_size"_a = 0, "enable_chunked_context"_a = true,
           "max_responses_per_second"_a = 0, "max_tokens_in_kv_cache"_a = nb::none())
      .def("submit", &PyBatchManager::submit, "input_ids"_a, "max_new_tokens"_a, "callback"_a,
           "stop_words"_a = std::vector<std::vector<int32_t>>(), "streaming"_a = false, "sampling"_a,
           R"(Queues a request and returns its id; or raises InflightError, and then never calls back.

callback(id, Response) is called from the delivery thread: once without streaming, else as tokens come;
what it raises goes to sys.unraisablehook. stop_words: token sequences that end the generation. Keyword
arguments are the fields of SamplingConfig (backend/engine/sampling_config.h): temperature, top_k …)")
      .def("cancel", &PyBatchManager::cancel, "id"_a,
           "Ends the request with a final response; one that has ended is left alone.")
      .def("statistics", &PyBatchManager::statistics,
           "A consistent snapshot: requests, blocks, tokens since the start.")
      .def_prop_ro("info", &PyBatchManager::info, "What the engine was built for.")
      .def("close", &PyBatchManager::close,
           "Ends all requests with an error and frees the engine; returns at once when called from a callback.")
      .def("__enter__", [](nb::object self) { return self; })
      .def("__exit__", [](PyBatchManager& self, const nb::args&) { self.close(); });
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(close_all));
}

}  // namespace inflight::python
