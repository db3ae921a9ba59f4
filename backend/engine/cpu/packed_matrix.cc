#include "engine/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "common/rounding.h"
#include "engine/cpu/float_types.h"

namespace inflight::cpu {
namespace {

constexpr char kMagic[8] = {'I', 'N', 'F', 'L', 'M', 'A', 'T', 'X'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kHasMinimum = 1;
constexpr uint32_t kHalfScales = 2;
constexpr int64_t kMaxDimension = int64_t{1} << 28;  // keeps every product of sizes within 64 bits
constexpr int64_t kMaxSegmentColumns = 32;
constexpr int64_t kSegmentMultiple = 8;  // columns of one 32-bit lane of int4

struct BlobHeader {
  char magic[8];
  uint32_t version;
  uint32_t type;
  int64_t rows;
  int64_t columns;
  int64_t groups;
  uint32_t flags;
  uint32_t reserved[5];
};
static_assert(sizeof(BlobHeader) == 64);

bool is_integer(WeightType type) { return type == WeightType::kInt8 || type == WeightType::kInt4; }

int64_t num_panels(const PackedLayout& layout) { return divide_up(layout.rows, kPanelRows); }

// What rows, columns and groups may be; an empty string when all is well.
std::string shape_error(WeightType type, int64_t rows, int64_t columns, int64_t groups) {
  if (rows < 1 || rows > kMaxDimension || columns < 1 || columns > kMaxDimension) {
    return concat("the shape [", rows, ", ", columns, "] is not within [1, 1] and [", kMaxDimension, ", ",
                  kMaxDimension, "]");
  }
  if (!is_integer(type) && groups != 0) return concat("a matrix of floats has ", groups, " groups instead of none");
  if (is_integer(type) && (groups < 1 || columns % groups != 0)) {
    return concat(groups, " groups do not divide ", columns, " columns");
  }
  if (type == WeightType::kInt4 && columns % 2 != 0) {
    return concat("int4 needs an even number of columns, not ", columns);
  }
  return "";
}

PackedLayout make_layout(WeightType type, int64_t rows, int64_t columns, int64_t groups, bool has_minimum,
                         bool half_scales) {
  PackedLayout layout{};
  layout.type = type;
  layout.rows = rows;
  layout.columns = columns;
  if (!is_integer(type)) {
    const int64_t element_bytes = type == WeightType::kFloat32 ? 4 : 2;
    layout.panel_bytes = round_up(columns * kPanelRows * element_bytes, 64);
    return layout;
  }
  const int64_t group_columns = columns / groups;
  layout.has_minimum = has_minimum;
  layout.half_scales = half_scales;
  layout.groups = groups;
  layout.segments_per_group = divide_up(group_columns, kMaxSegmentColumns);
  layout.segment_columns = round_up(divide_up(group_columns, layout.segments_per_group), kSegmentMultiple);
  layout.packed_columns = groups * layout.segments_per_group * layout.segment_columns;
  layout.minimum_offset = groups * kPanelRows * (half_scales ? 2 : 4);
  layout.weight_offset = round_up(layout.minimum_offset * (has_minimum ? 2 : 1), 64);
  const int64_t weight_bytes = layout.packed_columns * kPanelRows / (type == WeightType::kInt4 ? 2 : 1);
  layout.panel_bytes = round_up(layout.weight_offset + weight_bytes, 64);
  return layout;
}

template <class T>
T load(const std::byte* address) {
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
}

template <class T>
void store(std::byte* address, T value) {
  std::memcpy(address, &value, sizeof value);
}

bool all_float16(const float* values, int64_t count) {
  return std::all_of(values, values + count, [](float value) {
    return std::bit_cast<uint32_t>(float16_to_float(float_to_float16(value))) == std::bit_cast<uint32_t>(value);
  });
}

// values: the row's scales or minimums; packed: where those of the panel's first row begin.
void pack_scales(const PackedLayout& layout, const float* values, int64_t lane, std::byte* packed) {
  for (int64_t group = 0; group < layout.groups; ++group) {
    const int64_t element = group * kPanelRows + lane;
    if (layout.half_scales) {
      store(packed + element * 2, float_to_float16(values[group]));
    } else {
      store(packed + element * 4, values[group]);
    }
  }
}

float scale_at(const PackedLayout& layout, const std::byte* scales, int64_t group, int64_t lane) {
  const int64_t element = group * kPanelRows + lane;
  return layout.half_scales ? float16_to_float(load<uint16_t>(scales + element * 2))
                            : load<float>(scales + element * 4);
}

int64_t packed_column(const PackedLayout& layout, int64_t column) {
  const int64_t group_columns = layout.columns / layout.groups;
  return column / group_columns * layout.segments_per_group * layout.segment_columns + column % group_columns;
}

// Where a weight lies in its panel's weights: its byte, and for int4 how far to shift.
struct WeightPosition {
  int64_t byte;
  int shift;
};

WeightPosition weight_position(const PackedLayout& layout, int64_t column, int64_t lane) {
  const int64_t packed = packed_column(layout, column);
  if (layout.type == WeightType::kInt8) return {(packed / 4 * kPanelRows + lane) * 4 + packed % 4, 0};
  return {(packed / 8 * kPanelRows + lane) * 4 + packed % 4, packed % 8 < 4 ? 0 : 4};
}

void pack_float_row(const PackedLayout& layout, const std::byte* row, int64_t lane, std::byte* panel) {
  const int64_t element_bytes = layout.type == WeightType::kFloat32 ? 4 : 2;
  for (int64_t k = 0; k < layout.columns; ++k) {
    std::memcpy(panel + (k * kPanelRows + lane) * element_bytes, row + k * element_bytes, element_bytes);
  }
}

void pack_integer_row(const PackedLayout& layout, const std::byte* row, int64_t lane, std::byte* weights) {
  for (int64_t k = 0; k < layout.columns; ++k) {
    const WeightPosition position = weight_position(layout, k, lane);
    if (layout.type == WeightType::kInt8) {
      weights[position.byte] = row[k] ^ std::byte{0x80};  // q + 128
    } else {
      const std::byte nibble = (row[k / 2] >> (k % 2 * 4)) & std::byte{0x0f};
      weights[position.byte] |= nibble << position.shift;
    }
  }
}

}  // namespace

std::vector<std::byte> pack_matrix(const MatrixSource& source) {
  const bool integer = is_integer(source.type);
  std::string problem = shape_error(source.type, source.rows, source.columns, source.groups);
  if (problem.empty() && integer && source.scale == nullptr) problem = "integer weights need a scale";
  if (problem.empty() && !integer && source.scale != nullptr) problem = "float weights take no scale";
  if (problem.empty() && source.type != WeightType::kInt4 && source.minimum != nullptr) {
    problem = "only int4 weights take a minimum";
  }
  if (!problem.empty()) throw_error(ErrorCode::kInvalidArgument, "cannot pack the matrix: ", problem);

  const bool has_minimum = source.minimum != nullptr;
  const int64_t scale_count = source.rows * source.groups;
  const bool half_scales =
      integer && all_float16(source.scale, scale_count) && (!has_minimum || all_float16(source.minimum, scale_count));
  const PackedLayout layout =
      make_layout(source.type, source.rows, source.columns, source.groups, has_minimum, half_scales);

  BlobHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.type = static_cast<uint32_t>(source.type);
  header.rows = source.rows;
  header.columns = source.columns;
  header.groups = source.groups;
  header.flags = (has_minimum ? kHasMinimum : 0) | (half_scales ? kHalfScales : 0);

  std::vector<std::byte> blob(sizeof header + num_panels(layout) * layout.panel_bytes);
  std::memcpy(blob.data(), &header, sizeof header);
  const int64_t element_bits = source.type == WeightType::kFloat32 ? 32
                               : source.type == WeightType::kInt8  ? 8
                               : source.type == WeightType::kInt4  ? 4
                                                                   : 16;
  const int64_t row_bytes = source.columns * element_bits / 8;
  for (int64_t r = 0; r < source.rows; ++r) {
    const auto* row = static_cast<const std::byte*>(source.data) + r * row_bytes;
    std::byte* panel = blob.data() + sizeof header + r / kPanelRows * layout.panel_bytes;
    const int64_t lane = r % kPanelRows;
    if (!integer) {
      pack_float_row(layout, row, lane, panel);
      continue;
    }
    pack_scales(layout, source.scale + r * source.groups, lane, panel);
    if (has_minimum) pack_scales(layout, source.minimum + r * source.groups, lane, panel + layout.minimum_offset);
    pack_integer_row(layout, row, lane, panel + layout.weight_offset);
  }
  return blob;
}

PackedMatrix::PackedMatrix(std::span<const std::byte> blob, std::string_view name) {
  const auto require = [&](bool condition, const auto&... what) {
    if (condition) return;
    throw_error(ErrorCode::kInvalidArgument, "tensor ", name, " is not a packed matrix of this version: ", what...,
                "; rebuild the engine with `inflight build`");
  };
  require(blob.size() >= sizeof(BlobHeader), "it has ", blob.size(), " bytes");
  const auto header = load<BlobHeader>(blob.data());
  require(std::memcmp(header.magic, kMagic, sizeof kMagic) == 0, "it does not begin with ",
          std::string_view(kMagic, sizeof kMagic));
  require(header.version == kVersion, "its version is ", header.version, " instead of ", kVersion);
  require(header.type <= static_cast<uint32_t>(WeightType::kInt4), "its type is ", header.type);
  const auto type = static_cast<WeightType>(header.type);
  const std::string problem = shape_error(type, header.rows, header.columns, header.groups);
  require(problem.empty(), problem);
  const uint32_t allowed_flags = type == WeightType::kInt4   ? kHasMinimum | kHalfScales
                                 : type == WeightType::kInt8 ? kHalfScales
                                                             : 0;
  require((header.flags & ~allowed_flags) == 0, "its flags are ", header.flags);
  layout_ = make_layout(type, header.rows, header.columns, header.groups, header.flags & kHasMinimum,
                        header.flags & kHalfScales);
  const size_t expected = sizeof header + static_cast<size_t>(num_panels(layout_) * layout_.panel_bytes);
  require(blob.size() == expected, "it has ", blob.size(), " bytes instead of ", expected);
  panels_ = blob.data() + sizeof header;
}

void PackedMatrix::row(int64_t r, float* out) const {
  const std::byte* panel = panels_ + r / kPanelRows * layout_.panel_bytes;
  const int64_t lane = r % kPanelRows;
  switch (layout_.type) {
    case WeightType::kFloat32:
      for (int64_t k = 0; k < layout_.columns; ++k) out[k] = load<float>(panel + (k * kPanelRows + lane) * 4);
      return;
    case WeightType::kBFloat16:
      for (int64_t k = 0; k < layout_.columns; ++k) {
        out[k] = bfloat16_to_float(load<uint16_t>(panel + (k * kPanelRows + lane) * 2));
      }
      return;
    case WeightType::kFloat16:
      for (int64_t k = 0; k < layout_.columns; ++k) {
        out[k] = float16_to_float(load<uint16_t>(panel + (k * kPanelRows + lane) * 2));
      }
      return;
    case WeightType::kInt8:
    case WeightType::kInt4: break;
  }
  const bool is_int4 = layout_.type == WeightType::kInt4;
  const int mask = is_int4 ? 0x0f : 0xff;
  const int offset = is_int4 ? (layout_.has_minimum ? 0 : 8) : 128;
  const int64_t group_columns = layout_.columns / layout_.groups;
  for (int64_t group = 0; group < layout_.groups; ++group) {
    const float scale = scale_at(layout_, panel, group, lane);
    const float minimum = layout_.has_minimum ? scale_at(layout_, panel + layout_.minimum_offset, group, lane) : 0.0f;
    for (int64_t k = group * group_columns; k < (group + 1) * group_columns; ++k) {
      const WeightPosition position = weight_position(layout_, k, lane);
      const int q = (static_cast<int>(panel[layout_.weight_offset + position.byte]) >> position.shift & mask) - offset;
      out[k] = scale * static_cast<float>(q) + minimum;
    }
  }
}

}  // namespace inflight::cpu
