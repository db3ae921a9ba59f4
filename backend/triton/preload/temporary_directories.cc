// Preloaded into tritonserver: remembers the temporary directories that it makes.
//
// Triton's python backend makes /tmp/python_env_XXXXXX, whatever TMPDIR says, and leaves it there unless the server
// ends in good order. The guardian (inflight/launcher/guardian.py) removes what is linked in INFLIGHT_MADE_DIRECTORIES.

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string>
#include <string_view>

extern "C" __attribute__((visibility("default"))) char* mkdtemp(char* name_template) {
  static const auto make = reinterpret_cast<char* (*)(char*)>(dlsym(RTLD_NEXT, "mkdtemp"));
  char* const made = make(name_template);
  const char* const links = getenv("INFLIGHT_MADE_DIRECTORIES");
  const char* const name = made == nullptr ? nullptr : strrchr(made, '/');
  if (links != nullptr && name != nullptr && std::string_view(made).starts_with("/tmp/")) {
    // Without the link the directory stays behind, which is no reason to fail.
    [[maybe_unused]] const int status = symlink(made, (links + std::string(name)).c_str());
  }
  return made;
}
