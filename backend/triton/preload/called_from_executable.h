#pragma once

#include <dlfcn.h>
#include <sys/auxv.h>

namespace inflight {

// Whether a return address lies in the executable itself, tritonserver with its front ends, not in one of its
// libraries.
inline bool is_in_executable(const void* address) {
  static const void* const executable = [] {
    Dl_info entry{};
    dladdr(reinterpret_cast<void*>(getauxval(AT_ENTRY)), &entry);
    return entry.dli_fbase;
  }();
  Dl_info object{};
  return dladdr(address, &object) != 0 && object.dli_fbase == executable;
}

// The function that the calling library has replaced.
template <class Function>
Function* next_function(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace inflight
