// The preloaded library is for tritonserver alone: its children, the stubs of Python models, start without it.

#include <dlfcn.h>
#include <stdlib.h>

#include <sstream>
#include <string>

namespace {

__attribute__((constructor)) void forget_preload() {
  const char* preloaded = getenv("LD_PRELOAD");
  Dl_info self{};
  if (preloaded == nullptr || dladdr(reinterpret_cast<void*>(&forget_preload), &self) == 0) return;
  std::istringstream libraries(preloaded);
  std::string others;
  for (std::string library; std::getline(libraries, library, ':');) {
    if (library == self.dli_fname) continue;
    if (!others.empty()) others += ':';
    others += library;
  }
  if (others.empty()) {
    unsetenv("LD_PRELOAD");
  } else {
    setenv("LD_PRELOAD", others.c_str(), 1);
  }
}

}  // namespace
