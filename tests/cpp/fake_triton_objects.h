#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "triton/triton_api.h"

// What the files of the fake Triton share.
namespace inflight::test {

inline std::atomic<int64_t> live = 0;

// Base of what the backend makes and has to delete.
struct Counted {
  Counted() { ++live; }
  ~Counted() { --live; }
  Counted(const Counted&) = delete;
};

TRITONSERVER_Error* make_error(TRITONSERVER_Error_Code code, const std::string& message);

// Null, or what the test wants `function` to fail with.
TRITONSERVER_Error* planned_failure(const char* function);

}  // namespace inflight::test

struct TRITONSERVER_Parameter : inflight::test::Counted {
  std::string name, value;
};
