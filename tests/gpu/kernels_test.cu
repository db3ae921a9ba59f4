// Every GPU kernel, through its C++ launcher, against a float64 reference on random inputs. Outputs are poisoned first.
//   gpu_kernels_test [elementwise] [attention] [gemm] [decoder] [sampling] [small_sampling]     default: all

#include <cstring>

#include "device.cuh"
#include "tests.h"

int main(int count, char** names) {
  using namespace inflight::gpu_test;
  CHECK_CUDA(cudaFree(nullptr));  // makes the device's context current
  struct Subject {
    const char* name;
    void (*test)(Report&);
  };
  const Subject subjects[] = {{"elementwise", test_elementwise},
                              {"attention", test_attention},
                              {"gemm", test_gemm},
                              {"decoder", test_decoder},
                              {"sampling", test_sampling},
                              {"small_sampling", test_small_sampling}};
  Report report;
  for (const auto& [name, test] : subjects) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted |= std::strcmp(names[i], name) == 0;
    if (wanted) test(report);
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(cudaGetLastError());
  }
  return report.finish();
}
