#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <map>
#include <optional>
#include <string>

#include "common/error.h"
#include "engine/cpu/packed_matrix.h"
#include "python/bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace inflight::python {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Groups = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct WeightFormat {
  cpu::WeightType type;
  int64_t bits;
};
const std::map<std::string, WeightFormat> kFormats = {{"float32", {cpu::WeightType::kFloat32, 32}},
                                                      {"bfloat16", {cpu::WeightType::kBFloat16, 16}},
                                                      {"float16", {cpu::WeightType::kFloat16, 16}},
                                                      {"int8", {cpu::WeightType::kInt8, 8}},
                                                      {"int4", {cpu::WeightType::kInt4, 4}}};

void check_groups(const char* name, const Groups& groups, int64_t rows, int64_t expected_groups) {
  if (static_cast<int64_t>(groups.shape(0)) != rows || static_cast<int64_t>(groups.shape(1)) != expected_groups) {
    throw_error(ErrorCode::kInvalidArgument, "pack_matrix: ", name, " is [", groups.shape(0), ", ", groups.shape(1),
                "]; it must be [rows, groups] = [", rows, ", ", expected_groups, "]");
  }
}

nb::bytes pack_matrix(const std::string& dtype, const Bytes& data, int64_t rows, int64_t columns,
                      const std::optional<Groups>& scale, const std::optional<Groups>& minimum) {
  const auto format = kFormats.find(dtype);
  if (format == kFormats.end()) {
    throw_error(ErrorCode::kInvalidArgument, "pack_matrix: dtype is '", dtype,
                "'; it must be float32, bfloat16, float16, int8 or int4");
  }
  if (rows <= 0 || columns <= 0) {
    throw_error(ErrorCode::kInvalidArgument, "pack_matrix: the matrix is [", rows, ", ", columns,
                "]; both sides must be positive");
  }
  const int64_t row_bytes = (columns * format->second.bits + 7) / 8;
  if (static_cast<int64_t>(data.size()) != rows * row_bytes) {
    throw_error(ErrorCode::kInvalidArgument, "pack_matrix: data has ", data.size(), " bytes; a ", dtype, " matrix [",
                rows, ", ", columns, "] has ", rows * row_bytes);
  }
  if (minimum && !scale) throw_error(ErrorCode::kInvalidArgument, "pack_matrix: minimum is given without scale");

  cpu::MatrixSource source{format->second.type, rows, columns, 0, data.data()};
  if (scale) {
    source.groups = static_cast<int64_t>(scale->shape(1));
    check_groups("scale", *scale, rows, source.groups);
    source.scale = scale->data();
  }
  if (minimum) {
    check_groups("minimum", *minimum, rows, source.groups);
    source.minimum = minimum->data();
  }
  std::vector<std::byte> blob;
  {
    nb::gil_scoped_release release;
    blob = cpu::pack_matrix(source);
  }
  return nb::bytes(blob.data(), blob.size());
}

}  // namespace

void bind_packing(nb::module_& module) {
  module.def("pack_matrix", pack_matrix, "dtype"_a, "data"_a, "rows"_a, "columns"_a, "scale"_a = nb::none(),
             "minimum"_a = nb::none(),
             R"(Packs a checkpoint's matrix [rows, columns] into the blob that a CPU engine maps.

dtype: "float32", "bfloat16", "float16", "int8" or "int4". data: the checkpoint's bytes as a C-contiguous
uint8 array of any shape. scale, minimum: float32 [rows, groups], as docs/architecture.md defines them.
Raises InflightError for sizes that contradict each other.)");
}

}  // namespace inflight::python
