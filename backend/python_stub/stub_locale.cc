// Preloaded into the stubs of Triton's python backend: paths are UTF-8 in them.
//
// A stub starts Python in its isolated configuration, which neither sets a locale nor reads PYTHONUTF8 or LC_ALL. So
// paths are ASCII there, and one of another language cannot be opened. Python takes the encoding from the locale that
// the process has when it starts.

#include <clocale>

namespace {

__attribute__((constructor)) void use_utf8() {
  if (setlocale(LC_CTYPE, "C.UTF-8") == nullptr) setlocale(LC_CTYPE, "");
}

}  // namespace
