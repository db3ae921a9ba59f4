#include "common/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "common/error.h"

namespace inflight {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian and used in place");

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

template <class... Args>
[[noreturn]] void throw_invalid(const std::filesystem::path& path, const Args&... args) {
  throw_error(ErrorCode::kInvalidArgument, path.string(), ": not a valid safetensors file: ", args...);
}

size_t dtype_bits(const std::string& dtype) {
  static const std::map<std::string, size_t> bits = {
      {"BOOL", 8}, {"U8", 8},   {"I8", 8},    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"U16", 16},
      {"I16", 16}, {"F16", 16}, {"BF16", 16}, {"U32", 32},    {"I32", 32},    {"F32", 32},    {"U64", 64},
      {"I64", 64}, {"F64", 64}, {"F4", 4},    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"C64", 64}};
  const auto it = bits.find(dtype);
  return it == bits.end() ? 0 : it->second;
}

// Bytes of a tensor, rejecting products that overflow.
size_t tensor_bytes(const std::filesystem::path& path, const std::string& name, const std::string& dtype,
                    const std::vector<int64_t>& shape) {
  const size_t element_bits = dtype_bits(dtype);
  if (element_bits == 0) throw_invalid(path, "tensor '", name, "' has the unknown dtype '", dtype, "'");
  size_t bits = element_bits;
  for (const int64_t dimension : shape) {
    if (__builtin_mul_overflow(bits, static_cast<size_t>(dimension), &bits)) {
      throw_invalid(path, "tensor '", name, "' has a shape whose size overflows");
    }
  }
  if (bits % 8 != 0) throw_invalid(path, "tensor '", name, "' does not fill whole bytes");
  return bits / 8;
}

// One entry of the header: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}.
TensorView parse_entry(const std::filesystem::path& path, const std::string& name, const json& entry,
                       std::span<const std::byte> data) {
  const auto is_size = [](const json& value) {
    return value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{INT64_MAX};
  };
  const bool well_formed =
      entry.is_object() && entry.contains("dtype") && entry["dtype"].is_string() && entry.contains("shape") &&
      entry["shape"].is_array() && std::all_of(entry["shape"].begin(), entry["shape"].end(), is_size) &&
      entry.contains("data_offsets") && entry["data_offsets"].is_array() && entry["data_offsets"].size() == 2 &&
      is_size(entry["data_offsets"][0]) && is_size(entry["data_offsets"][1]);
  if (!well_formed) throw_invalid(path, "tensor '", name, "' lacks a proper dtype, shape or data_offsets");

  TensorView tensor;
  tensor.dtype = entry["dtype"].get<std::string>();
  tensor.shape = entry["shape"].get<std::vector<int64_t>>();
  const uint64_t begin = entry["data_offsets"][0].get<uint64_t>();
  const uint64_t end = entry["data_offsets"][1].get<uint64_t>();
  if (begin > end) throw_invalid(path, "tensor '", name, "' ends (", end, ") before it begins (", begin, ")");
  if (end > data.size()) {
    throw_invalid(path, "truncated: tensor '", name, "' ends at byte ", end, " of the data, of which there are ",
                  data.size(), "; copy the file again");
  }
  const size_t bytes = tensor_bytes(path, name, tensor.dtype, tensor.shape);
  if (end - begin != bytes) {
    throw_invalid(path, "tensor '", name, "' takes ", end - begin, " bytes, but its dtype and shape need ", bytes);
  }
  tensor.data = data.subspan(begin, bytes);
  return tensor;
}

// The tensors cover the data from end to end, without gaps or overlaps.
void check_coverage(const std::filesystem::path& path, const std::map<std::string, TensorView>& tensors,
                    std::span<const std::byte> data) {
  std::vector<std::pair<size_t, size_t>> ranges;
  ranges.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = tensor.data.data() - data.data();
    ranges.emplace_back(begin, begin + tensor.data.size());
  }
  std::sort(ranges.begin(), ranges.end());
  size_t covered = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != covered) throw_invalid(path, "its tensors overlap or leave a gap at byte ", covered, " of the data");
    covered = end;
  }
  if (covered != data.size()) {
    throw_invalid(path, "its tensors end at byte ", covered, " of the data, of which there are ", data.size());
  }
}

std::map<std::string, TensorView> parse(const std::filesystem::path& path, std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) throw_invalid(path, "it has only ", file.size(), " bytes");
  uint64_t header_bytes;
  std::memcpy(&header_bytes, file.data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes) throw_invalid(path, "its header would have ", header_bytes, " bytes");
  if (header_bytes > file.size() - kLengthBytes) {
    throw_invalid(path, "truncated: the header has ", header_bytes, " bytes, the file only ", file.size());
  }

  const char* header = reinterpret_cast<const char*>(file.data()) + kLengthBytes;
  std::set<std::string> names;
  const auto refuse_repeated_names = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1 && !names.insert(parsed.get<std::string>()).second) {
      throw_invalid(path, "tensor '", parsed.get<std::string>(), "' is there twice");
    }
    return true;
  };
  const json entries = json::parse(header, header + header_bytes, refuse_repeated_names, /*allow_exceptions=*/false);
  if (!entries.is_object()) throw_invalid(path, "its header is not a JSON object");

  const std::span<const std::byte> data = file.subspan(kLengthBytes + header_bytes);
  std::map<std::string, TensorView> tensors;
  for (const auto& [name, entry] : entries.items()) {
    if (name != "__metadata__") tensors.emplace(name, parse_entry(path, name, entry, data));
  }
  check_coverage(path, tensors, data);
  return tensors;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    throw_error(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kInvalidArgument, "cannot open ", path.string(),
                ": ", std::strerror(errno));
  }
  struct stat status;
  const bool is_file = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  if (is_file && status.st_size > 0) {
    size_ = static_cast<size_t>(status.st_size);
    mapping_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
  }
  const int mmap_errno = errno;
  close(descriptor);
  if (!is_file) throw_invalid(path, "it is not a regular file");
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw_error(ErrorCode::kInternal, "cannot map ", path.string(), ": ", std::strerror(mmap_errno));
  }
  try {
    tensors_ = parse(path_, {static_cast<const std::byte*>(mapping_), size_});
  } catch (...) {
    if (mapping_ != nullptr) munmap(mapping_, size_);
    throw;
  }
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr) munmap(mapping_, size_);
}

const TensorView& SafetensorsFile::tensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) throw_error(ErrorCode::kNotFound, path_.string(), ": there is no tensor '", name, "'");
  return it->second;
}

}  // namespace inflight
