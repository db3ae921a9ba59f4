#include "engine/engine.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "python/bindings.h"
#include "python/teacher_forcing.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace inflight::python {
namespace {

using LogitsArray = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

LogitsArray to_numpy(std::vector<float> values, size_t columns) {
  auto* owned = new std::vector<float>(std::move(values));
  nb::capsule owner(owned, [](void* pointer) noexcept { delete static_cast<std::vector<float>*>(pointer); });
  return {owned->data(), {owned->size() / columns, columns}, owner};
}

class PyEngine {
 public:
  PyEngine(const std::filesystem::path& engine_dir, int32_t num_threads,
           std::optional<int64_t> max_tokens_in_kv_cache) {
    nb::gil_scoped_release release;
    engine_ = load_engine(engine_dir, {.num_threads = num_threads, .max_tokens_in_kv_cache = max_tokens_in_kv_cache});
  }

  const EngineInfo& info() const { return engine_->info(); }

  std::vector<LogitsArray> logits(const std::vector<std::vector<int32_t>>& sequences, std::optional<int32_t> chunk_size,
                                  std::optional<int32_t> tokens_per_step) {
    std::vector<std::vector<float>> rows;
    {
      nb::gil_scoped_release release;
      std::lock_guard lock(mutex_);
      rows = teacher_forced_logits(*engine_, sequences, {chunk_size, tokens_per_step});
    }
    std::vector<LogitsArray> arrays;
    for (auto& values : rows) arrays.push_back(to_numpy(std::move(values), info().vocab_size));
    return arrays;
  }

 private:
  std::mutex mutex_;  // an engine has one caller at a time
  std::unique_ptr<Engine> engine_;
};

}  // namespace

void bind_engine(nb::module_& module) {
  nb::class_<EngineInfo>(module, "EngineInfo", "What an engine was built for and what it got.")
      .def_ro("model_type", &EngineInfo::model_type)
      .def_ro("vocab_size", &EngineInfo::vocab_size)
      .def_ro("max_batch_size", &EngineInfo::max_batch_size)
      .def_ro("max_num_tokens", &EngineInfo::max_num_tokens)
      .def_ro("max_seq_len", &EngineInfo::max_seq_len)
      .def_ro("tokens_per_block", &EngineInfo::tokens_per_block)
      .def_ro("num_blocks", &EngineInfo::num_blocks)
      .def_ro("num_host_blocks", &EngineInfo::num_host_blocks)
      .def_ro("kv_bytes_per_block", &EngineInfo::kv_bytes_per_block)
      .def_ro("max_beam_width", &EngineInfo::max_beam_width)
      .def_ro("attention_window", &EngineInfo::attention_window)
      .def_ro("sink_tokens", &EngineInfo::sink_tokens)
      .def_ro("end_ids", &EngineInfo::end_ids)
      .def_ro("pad_id", &EngineInfo::pad_id);
  nb::class_<PyEngine>(module, "Engine", "The engine in engine_dir without a batch manager, for tests and perplexity.")
      .def(nb::init<const std::filesystem::path&, int32_t, std::optional<int64_t>>(), "engine_dir"_a,
           "num_threads"_a = 0, "max_tokens_in_kv_cache"_a = nb::none())
      .def_prop_ro("info", &PyEngine::info)
      .def("logits", &PyEngine::logits, "sequences"_a, "chunk_size"_a = nb::none(), "tokens_per_step"_a = nb::none(),
           R"(Teacher forcing: the logits after every token of each sequence, a float32 array [tokens, vocab_size] each.

sequences: lists of token ids; they run together in ragged steps of at most tokens_per_step tokens, at most
chunk_size of one sequence (default: what the engine takes). Raises InflightError for what it cannot hold.)");
}

}  // namespace inflight::python
