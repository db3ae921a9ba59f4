#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace inflight {

// One tensor of a safetensors file: a view into the mapped file, valid as long as the file is.
struct TensorView {
  std::string dtype;  // as safetensors spells it: "F32", "F16", "BF16", "I8", "U8" …
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

// A memory-mapped safetensors file (https://github.com/huggingface/safetensors, "Format").
// Opening validates the header against the file's size, so a truncated or foreign file is an Error
// that names the file and what is wrong with it, never a fault later.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  bool contains(const std::string& name) const { return tensors_.count(name) != 0; }
  // Throws kNotFound, naming the file and the tensor.
  const TensorView& tensor(const std::string& name) const;

 private:
  std::filesystem::path path_;
  void* mapping_ = nullptr;
  size_t size_ = 0;
  std::map<std::string, TensorView> tensors_;
};

}  // namespace inflight
