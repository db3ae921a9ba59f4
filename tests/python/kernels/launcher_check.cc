// Launches the kernel of scale_rows.py on a CUDA driver that only takes notes, and prints what came of it: a line a
// launch, "NAME: ok" or "NAME: <error>", then what the driver was asked for.
//   launcher_check CAPABILITY [missing]      missing: the driver lacks cuLaunchKernelEx

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "scale_rows.h"

namespace {

int capability;
bool driver_is_missing, launch_fails;
std::string notes;

CUresult context_device(CUdevice* device) {
  *device = 0;
  return CUDA_SUCCESS;
}
CUresult device_attribute(int* value, CUdevice_attribute attribute, CUdevice) {
  *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? capability / 10 : capability % 10;
  return CUDA_SUCCESS;
}
CUresult load_module(CUmodule* module, const void* image) {
  if (std::memcmp(image, "\177ELF", 4) != 0) return CUDA_ERROR_INVALID_IMAGE;
  *module = reinterpret_cast<CUmodule>(const_cast<void*>(image));
  notes += " load";
  return CUDA_SUCCESS;
}
CUresult module_function(CUfunction* function, CUmodule module, const char* symbol) {
  *function = reinterpret_cast<CUfunction>(module);
  notes += std::string(" ") + symbol;
  return CUDA_SUCCESS;
}
CUresult set_attribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
CUresult launch_kernel(const CUlaunchConfig* config, CUfunction, void** parameters, void**) {
  if (launch_fails) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  char text[200];
  std::snprintf(text, sizeof text, " launch %ux%ux%u of %u rows=%d size=%d factor=%g scratch=%p", config->gridDimX,
                config->gridDimY, config->gridDimZ, config->blockDimX, *static_cast<int*>(parameters[2]),
                *static_cast<int*>(parameters[3]), *static_cast<float*>(parameters[4]),
                *static_cast<void**>(parameters[6]));
  notes += text;
  return CUDA_SUCCESS;
}
CUresult error_string(CUresult, const char** text) {
  *text = "what the driver says";
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" cudaError_t CUDARTAPI cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                                                  unsigned long long,
                                                                  cudaDriverEntryPointQueryResult*) {
  const std::pair<const char*, void*> functions[] = {
      {"cuCtxGetDevice", reinterpret_cast<void*>(&context_device)},
      {"cuDeviceGetAttribute", reinterpret_cast<void*>(&device_attribute)},
      {"cuModuleLoadData", reinterpret_cast<void*>(&load_module)},
      {"cuModuleGetFunction", reinterpret_cast<void*>(&module_function)},
      {"cuFuncSetAttribute", reinterpret_cast<void*>(&set_attribute)},
      {"cuLaunchKernelEx", driver_is_missing ? nullptr : reinterpret_cast<void*>(&launch_kernel)},
      {"cuGetErrorString", reinterpret_cast<void*>(&error_string)},
  };
  *function = nullptr;
  for (const auto& [name, address] : functions) {
    if (std::strcmp(name, symbol) == 0) *function = address;
  }
  return *function ? cudaSuccess : cudaErrorSymbolNotFound;
}

int main(int count, char** arguments) {
  using namespace inflight::kernels;
  capability = std::stoi(arguments[1]);
  driver_is_missing = count > 2;

  alignas(16) static char memory[64];
  const ScaleRows good{.dtype = DataType::kBFloat16,
                       .sign = ScaleRowsSign::kPlus,
                       .repeats = 1,
                       .output = memory,
                       .input = memory,
                       .rows = 5,
                       .size = 48,
                       .factor = 2.5f};
  const auto report = [](const char* name, const Status& status) {
    std::printf("%s: %s%s\n", name, status.ok() ? "ok" : status.message().c_str(), notes.c_str());
    notes.clear();
  };
  const auto with = [&](auto change) {
    ScaleRows changed = good;
    change(changed);
    return launch(changed, nullptr);
  };
  report("load", load(good));
  report("first", launch(good, nullptr));
  report("larger", with([](ScaleRows& a) { a.size = 160; }));
  report("float32", with([](ScaleRows& a) { a.dtype = DataType::kFloat32; }));
  report("repeated", with([](ScaleRows& a) { a.repeats = 3; }));
  report("minus", with([](ScaleRows& a) { a.sign = ScaleRowsSign::kMinus; }));
  report("dtype", with([](ScaleRows& a) { a.dtype = DataType::kFloat16; }));
  report("key", with([](ScaleRows& a) { a.repeats = 2; }));
  report("combination", with([](ScaleRows& a) { a.sign = ScaleRowsSign::kMinus, a.repeats = 3; }));
  report("pointer", with([](ScaleRows& a) { a.input = memory + 2; }));
  report("number", with([](ScaleRows& a) { a.size = 40; }));
  report("tile", with([](ScaleRows& a) { a.size = 272; }));
  report("empty", with([](ScaleRows& a) { a.rows = 0; }));
  report("negative", with([](ScaleRows& a) { a.rows = -1; }));
  launch_fails = true;
  report("driver", launch(good, nullptr));
  ScaleRows minus = good;
  minus.sign = ScaleRowsSign::kMinus;
  minus.rows = 9;
  std::printf("choice: %d %d\n", choose_rows(good), choose_rows(minus));
}
