#include "batch_manager/batch_manager.h"

#include <chrono>
#include <exception>
#include <filesystem>
#include <future>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "common/logging.h"
#include "python/bindings.h"
#include "python/keyword_arguments.h"
#include "python/manager_options.h"
#include "python/requests.h"
#include "python/responses.h"
#include "python/statistics.h"

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

void deliver(const nb::object& callback, RequestId id, const Response& response, int32_t vocab_size) {
  nb::gil_scoped_acquire gil;
  CallbackScope scope;
  try {
    callback(id, to_python(response, vocab_size));
  } catch (nb::python_error& error) {
    error.discard_as_unraisable(callback);
  } catch (const std::exception& exception) {
    log_error("request ", id, ": a response did not reach its callback: ", exception.what());
  }
}

class PyBatchManager {
 public:
  PyBatchManager(nb::handle engine_dir, const nb::kwargs& keyword_arguments) {
    const auto directory = argument<std::filesystem::path>("engine_dir", engine_dir);
    ManagerOptions options = parse_manager_options(keyword_arguments);
    steps_ = std::make_shared<History<StepStatistics>>(options.history);
    ended_requests_ = std::make_shared<History<RequestTimes>>(options.history);
    options.batch_manager.on_step = [history = steps_](const auto& statistics) { history->add(statistics); };
    options.batch_manager.on_request_end = [history = ended_requests_](const auto& times) { history->add(times); };
    {
      nb::gil_scoped_release release;
      if (!options.draft_engine_dir.empty()) {
        options.batch_manager.draft_model.engine =
            load_engine(options.draft_engine_dir, {.num_threads = options.engine.num_threads});
      }
      manager_.reset(new BatchManager(load_engine(directory, options.engine), options.batch_manager), destroy);
    }
    open_managers.insert(this);
  }
  ~PyBatchManager() { close(); }
  PyBatchManager(const PyBatchManager&) = delete;
  PyBatchManager& operator=(const PyBatchManager&) = delete;

  RequestId submit(nb::handle input_ids, nb::handle max_new_tokens, nb::object callback,
                   const nb::kwargs& keyword_arguments) {
    const auto manager = open();
    Request request = parse_request(input_ids, max_new_tokens, keyword_arguments);
    if (!PyCallable_Check(callback.ptr())) refuse("callback", callback, "callable with a request's id and a Response");
    auto shared_callback = share(std::move(callback));
    nb::gil_scoped_release release;
    return manager->submit(
        std::move(request),
        [callback = std::move(shared_callback), vocab_size = manager->engine_info().vocab_size](
            RequestId id, const Response& response) { deliver(*callback, id, response, vocab_size); });
  }

  void cancel(RequestId id) {
    const auto manager = open();
    nb::gil_scoped_release release;
    manager->cancel(id);
  }

  nb::dict statistics() const { return to_python(open()->statistics()); }
  nb::list last_iterations() const { return to_python(steps_->entries()); }
  nb::list last_requests() const { return to_python(ended_requests_->entries()); }

  EngineInfo info() const { return open()->engine_info(); }

  void close() {
    open_managers.erase(this);
    const auto last = std::move(manager_);
  }

  // In a child that was forked: the manager's threads are not there, so that nothing could use or end it.
  void abandon() {
    new std::shared_ptr<BatchManager>(std::move(manager_));
    is_abandoned_ = true;
  }

 private:
  std::shared_ptr<BatchManager> open() const {
    if (is_abandoned_) {
      throw_error(ErrorCode::kUnavailable,
                  "this BatchManager belongs to the process that forked this one: make another one here");
    }
    if (!manager_) throw_error(ErrorCode::kUnavailable, "this BatchManager is closed");
    return manager_;
  }

  std::shared_ptr<BatchManager> manager_;
  bool is_abandoned_ = false;
  std::shared_ptr<History<StepStatistics>> steps_;
  std::shared_ptr<History<RequestTimes>> ended_requests_;
};

// In a child that was forked, before it runs anything else.
void abandon_all() {
  for (PyBatchManager* manager : open_managers) manager->abandon();
  open_managers.clear();
  new std::vector<std::future<void>>(std::exchange(closings, {}));  // they would wait for threads that are not there
}

// Before the interpreter goes: no thread of ours may wait for the GIL after that.
void close_all() {
  while (!open_managers.empty()) (*open_managers.begin())->close();
  auto last = std::move(closings);
  nb::gil_scoped_release release;
  last.clear();  // waits for them
}

}  // namespace

void bind_batch_manager(nb::module_& module) {
  module.attr("DEFAULT_MAX_WORDS") = WordLimits().max_words;
  module.attr("DEFAULT_MAX_WORDS_LENGTH") = WordLimits().max_length;
  nb::class_<PyBatchManager>(module, "BatchManager", R"(In-flight batching over the engine in engine_dir.

Keyword arguments are the fields of EngineOptions (backend/engine/engine.h) and BatchManagerOptions
(backend/batch_manager/batch_manager.h), such as num_threads, max_tokens_in_kv_cache, kv_cache_host_bytes,
enable_kv_cache_reuse, tokenizer_dir, prompt_lookup_max_draft_tokens and prompt_lookup_max_ngram; scheduler_policy:
"guaranteed_no_evict" (the default), "max_utilization" or "static_batch"; draft_engine_dir: the engine of a smaller
model that proposes num_draft_tokens (4) in each step; and history: of how many steps and ended requests
statistics are kept (1000). Raises InflightError.)")
      .def(nb::init<nb::handle, const nb::kwargs&>(), "engine_dir"_a.none(), "options"_a)
      .def("submit", &PyBatchManager::submit, "input_ids"_a.none(), "max_new_tokens"_a.none(), "callback"_a.none(),
           "options"_a,
           R"(Queues a request and returns its id; or raises InflightError, and then never calls back.

callback(id, Response) is called from the delivery thread: once a sequence without streaming, else as tokens come;
what it raises goes to sys.unraisablehook. Keyword arguments are the fields of SamplingConfig
(backend/engine/sampling_config.h), Request and BeamSearchConfig (backend/batch_manager/request.h): temperature, top_k,
streaming, num_return_sequences, beam_width … Of other forms are

early_stopping: True, False or "never". beam_search_diversity_rate: BeamSearchConfig's diversity_rate.
timeout: seconds until the request ends with an error; None: never.
stop_texts: texts that end the generation, beside stop_words, which are lists of token ids;
include_stop_str_in_output (True), skip_special_tokens (True) and stop_min_tokens (0): their StopTexts.
guided_decoding: (type, guide); the type is "json", "json_schema", "regex", "grammar" or "choice".
retention_ranges: [(begin, end or None, priority, milliseconds or None), …], of the prompt's tokens;
retention_decode_priority, retention_decode_duration_ms: of generated tokens.)")
      .def("cancel", &PyBatchManager::cancel, "id"_a,
           "Ends the request with a final response; one that has ended is left alone.")
      .def("statistics", &PyBatchManager::statistics,
           "A consistent snapshot, the fields of Statistics (backend/batch_manager/statistics.h); the keys call steps "
           "iterations, and sequences requests.")
      .def("last_iterations", &PyBatchManager::last_iterations,
           "The last steps, oldest first: the fields of StepStatistics; the keys call a step an iteration, sequences "
           "requests, and slices sequences; durations are seconds.")
      .def("last_requests", &PyBatchManager::last_requests,
           "The requests that ended last, oldest first: the fields of RequestTimes; durations are seconds.")
      .def_prop_ro("info", &PyBatchManager::info, "What the engine was built for.")
      .def("close", &PyBatchManager::close,
           "Ends all requests with an error and frees the engine; returns at once when called from a callback.")
      .def(
          "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> BatchManager"))
      .def("__exit__", [](PyBatchManager& self, const nb::args&) { self.close(); });
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(close_all));
  nb::module_::import_("os").attr("register_at_fork")("after_in_child"_a = nb::cpp_function(abandon_all));
}

}  // namespace inflight::python
