#include "batch_manager/words/token_texts.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>

#include <filesystem>
#include <optional>
#include <string_view>

#include "python/bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace inflight::python {
namespace {

std::optional<nb::bytes> to_bytes(std::optional<std::string_view> text) {
  if (!text) return std::nullopt;
  return nb::bytes(text->data(), text->size());
}

}  // namespace

void bind_token_texts(nb::module_& module) {
  nb::class_<TokenTexts>(module, "TokenTexts",
                         "The bytes that each token adds to a text, of tokenizer_dir/tokenizer.json. "
                         "Raises InflightError naming the file.")
      .def(nb::init<const std::filesystem::path&>(), "tokenizer_dir"_a)
      .def(
          "text", [](const TokenTexts& self, int32_t token, bool skips) { return to_bytes(self.text(token, skips)); },
          "token"_a, "skips_special_tokens"_a, "None: it is no text.")
      .def(
          "first_text",
          [](const TokenTexts& self, int32_t token, bool skips) { return to_bytes(self.first_text(token, skips)); },
          "token"_a, "skips_special_tokens"_a, "The same at the start of a text.")
      .def_prop_ro("longest", &TokenTexts::longest, "Bytes of the longest.");
}

}  // namespace inflight::python
