#include "kernel_launch.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <mutex>
#include <set>

namespace inflight::kernels {
namespace {

constexpr int64_t kMaxGridX = 0x7fffffff;
constexpr int64_t kMaxGridYZ = 0xffff;

// The driver's functions, each null where the driver lacks it.
struct Driver {
  decltype(&cuCtxGetDevice) context_device;
  decltype(&cuDeviceGetAttribute) device_attribute;
  decltype(&cuModuleLoadData) load_module;
  decltype(&cuModuleGetFunction) module_function;
  decltype(&cuFuncSetAttribute) set_function_attribute;
  decltype(&cuLaunchKernelEx) launch;
  decltype(&cuGetErrorString) error_string;
  std::string missing;  // the first function that was not found, with the reason
};

template <class Function>
void resolve(Driver& driver, const char* symbol, Function& function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion(symbol, &found, 12000, cudaEnableDefault, &result);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(symbol, &found, cudaEnableDefault, &result);
#endif
  function = reinterpret_cast<Function>(found);
  if (found == nullptr && driver.missing.empty()) {
    driver.missing =
        std::string("the CUDA driver has no ") + symbol + ": is an NVIDIA driver for CUDA 12 or newer installed?";
    if (error != cudaSuccess) driver.missing += " (CUDA error " + std::to_string(error) + ")";
  }
}

const Driver& driver() {
  static const Driver resolved = [] {
    Driver driver{};
    resolve(driver, "cuCtxGetDevice", driver.context_device);
    resolve(driver, "cuDeviceGetAttribute", driver.device_attribute);
    resolve(driver, "cuModuleLoadData", driver.load_module);
    resolve(driver, "cuModuleGetFunction", driver.module_function);
    resolve(driver, "cuFuncSetAttribute", driver.set_function_attribute);
    resolve(driver, "cuLaunchKernelEx", driver.launch);
    resolve(driver, "cuGetErrorString", driver.error_string);
    return driver;
  }();
  return resolved;
}

std::string error_text(CUresult error) {
  const char* text = nullptr;
  if (driver().error_string(error, &text) != CUDA_SUCCESS || text == nullptr) text = "unknown error";
  return std::string(text) + " (CUDA driver error " + std::to_string(error) + ")";
}

std::string target_name(int target) { return "sm_" + std::to_string(target); }

// Machine code of a compute capability runs on later ones of the same generation; that of 9.0, which has instructions
// of its own, on 9.0 alone.
bool runs_on(int target, int device) { return target / 10 == device / 10 && target <= device; }

}  // namespace

Status Status::error(std::string message) {
  Status status;
  status.message_ = std::move(message);
  return status;
}

KernelTable::KernelTable(const char* name, const char* symbol, std::span<const Choice> choices,
                         std::span<const Variant> variants)
    : name_(name),
      symbol_(symbol),
      choices_(choices),
      variants_(variants),
      loaded_(std::make_unique<std::atomic<CUfunction>[]>(variants.size() * kMaxDevices)) {}

Status KernelTable::find_target(int& target) const {
  static std::atomic<int> capabilities[kMaxDevices];  // 0: not asked yet
  if (!driver().missing.empty()) return Status::error(std::string(name_) + ": " + driver().missing);
  CUdevice device = 0;
  if (const CUresult error = driver().context_device(&device); error != CUDA_SUCCESS) {
    return Status::error(std::string(name_) + ": no CUDA device is current in this thread: " + error_text(error));
  }
  if (device >= kMaxDevices) return Status::error(std::string(name_) + ": more than 64 devices");
  int capability = capabilities[device].load(std::memory_order_relaxed);
  if (capability == 0) {
    int major = 0, minor = 0;
    driver().device_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
    driver().device_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
    capability = 10 * major + minor;
    capabilities[device].store(capability, std::memory_order_relaxed);
  }
  target = 0;
  for (const Variant& variant : variants_) {
    if (runs_on(variant.target, capability)) target = std::max(target, variant.target);
  }
  if (target != 0) return {};
  std::set<int> targets;
  for (const Variant& variant : variants_) targets.insert(variant.target);
  std::string compiled;
  for (const int each : targets) compiled += (compiled.empty() ? "" : ", ") + target_name(each);
  return Status::error(std::string(name_) + " was compiled for " + compiled + "; this GPU is " +
                       target_name(capability) + ": compile it with --target " + target_name(capability));
}

Status KernelTable::launch(int target, int tile, std::span<const int64_t> values, const Grid& grid, bool programmatic,
                           void** parameters, CUstream stream) {
  const Variant* variant = nullptr;
  if (Status status = find(target, tile, values, &variant); !status.ok()) return status;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return {};
  if (std::min({grid.x, grid.y, grid.z}) < 0 || grid.x > kMaxGridX || std::max(grid.y, grid.z) > kMaxGridYZ) {
    return Status::error(std::string(name_) + ": the grid is " + std::to_string(grid.x) + " x " +
                         std::to_string(grid.y) + " x " + std::to_string(grid.z) + "; at most " +
                         std::to_string(kMaxGridX) + " x " + std::to_string(kMaxGridYZ) + " x " +
                         std::to_string(kMaxGridYZ) + " blocks can be launched");
  }
  CUfunction function = nullptr;
  if (Status status = this->function(*variant, &function); !status.ok()) return status;

  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  attribute.value.programmaticStreamSerializationAllowed = 1;
  CUlaunchConfig config{};
  config.gridDimX = static_cast<unsigned>(grid.x);
  config.gridDimY = static_cast<unsigned>(grid.y);
  config.gridDimZ = static_cast<unsigned>(grid.z);
  config.blockDimX = variant->threads;
  config.blockDimY = config.blockDimZ = 1;
  config.sharedMemBytes = variant->shared_bytes;
  config.hStream = stream;
  config.attrs = &attribute;
  config.numAttrs = programmatic ? 1 : 0;
  if (const CUresult error = driver().launch(&config, function, parameters, nullptr); error != CUDA_SUCCESS) {
    return Status::error(std::string(name_) + " could not be launched: " + error_text(error));
  }
  return {};
}

Status KernelTable::load(int target, int tile, std::span<const int64_t> values) {
  const Variant* variant = nullptr;
  if (Status status = find(target, tile, values, &variant); !status.ok()) return status;
  CUfunction function = nullptr;
  return this->function(*variant, &function);
}

Status KernelTable::no_tile(int target, std::initializer_list<const char*> conditions) const {
  std::string all;
  for (const char* condition : conditions) all += (all.empty() ? "" : "; ") + std::string(condition);
  return Status::error(std::string(name_) + ": no tile for " + target_name(target) +
                       " fits these arguments; there are tiles for: " + all);
}

Status KernelTable::not_aligned(const char* argument, bool is_pointer, uint64_t value) const {
  return Status::error(std::string(name_) + ": " + argument + (is_pointer ? " points to address " : " is ") +
                       std::to_string(value) +
                       ", which is no multiple of 16: every variant was compiled for multiples of 16");
}

Status KernelTable::find(int target, int tile, std::span<const int64_t> values, const Variant** variant) const {
  const auto found = std::ranges::find_if(variants_, [&](const Variant& each) {
    return each.target == target && each.tile == tile && std::equal(values.begin(), values.end(), each.values);
  });
  if (found == variants_.end()) return not_compiled(target, tile, values);
  *variant = &*found;
  return {};
}

Status KernelTable::function(const Variant& variant, CUfunction* function) {
  CUdevice device = 0;
  driver().context_device(&device);
  std::atomic<CUfunction>& loaded = loaded_[(&variant - variants_.data()) * kMaxDevices + device];
  *function = loaded.load(std::memory_order_acquire);
  if (*function != nullptr) return {};

  static std::mutex loading;
  const std::lock_guard lock(loading);
  *function = loaded.load(std::memory_order_acquire);
  if (*function != nullptr) return {};
  const auto failed = [&](const char* what, CUresult error) {
    return Status::error(std::string(name_) + " for " + target_name(variant.target) + what + error_text(error));
  };
  CUmodule module = nullptr;  // stays loaded as long as the device's context
  if (const CUresult error = driver().load_module(&module, variant.image); error != CUDA_SUCCESS) {
    return failed(" could not be loaded: ", error);
  }
  CUfunction found = nullptr;
  if (const CUresult error = driver().module_function(&found, module, symbol_); error != CUDA_SUCCESS) {
    return failed(" has not the expected symbol: ", error);
  }
  constexpr uint32_t kSharedWithoutAsking = 48 * 1024;
  if (variant.shared_bytes > kSharedWithoutAsking) {
    const CUresult error = driver().set_function_attribute(found, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                                           static_cast<int>(variant.shared_bytes));
    if (error != CUDA_SUCCESS) return failed(" gets too little shared memory: ", error);
  }
  // A kernel starts beside one that still runs only where both ask for the same division of the first-level cache.
  driver().set_function_attribute(found, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100);
  loaded.store(found, std::memory_order_release);
  *function = found;
  return {};
}

Status KernelTable::not_compiled(int target, int tile, std::span<const int64_t> values) const {
  const std::string start = std::string(name_) + " for " + target_name(target) + ": ";
  for (size_t i = 0; i < choices_.size(); ++i) {
    std::set<int64_t> compiled;
    for (const Variant& each : variants_) {
      if (each.target == target) compiled.insert(each.values[i]);
    }
    if (compiled.contains(values[i])) continue;
    std::string list;
    for (const int64_t value : compiled) list += (list.empty() ? "" : ", ") + value_name(i, value);
    return Status::error(start + choices_[i].name + " is " + value_name(i, values[i]) + "; it was compiled for " +
                         list);
  }
  std::string chosen;
  for (size_t i = 0; i < choices_.size(); ++i) {
    chosen += (i == 0 ? "" : ", ") + std::string(choices_[i].name) + " = " + value_name(i, values[i]);
  }
  return Status::error(start + "the combination " + chosen + " with tile " + std::to_string(tile) +
                       " was not compiled");
}

std::string KernelTable::value_name(size_t choice, int64_t value) const {
  const auto& names = choices_[choice].value_names;
  return value >= 0 && static_cast<size_t>(value) < names.size() ? names[value] : std::to_string(value);
}

}  // namespace inflight::kernels
