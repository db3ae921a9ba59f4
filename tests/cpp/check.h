#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "common/error.h"

// Just enough of a test framework: TEST registers, main() runs all (or those whose name contains argv[1]).
// A failed check reports its place and ends the test program.
namespace inflight::test {

inline std::vector<std::pair<std::string, void (*)()>>& registry() {
  static std::vector<std::pair<std::string, void (*)()>> tests;
  return tests;
}
struct Registration {
  Registration(const char* name, void (*run)()) { registry().emplace_back(name, run); }
};

inline void fail(const char* file, int line, const std::string& what) {
  std::cerr << file << ":" << line << ": " << what << std::endl;
  std::exit(1);
}

}  // namespace inflight::test

#define TEST(name)                                                            \
  static void name();                                                         \
  static const inflight::test::Registration registration_##name(#name, name); \
  static void name()

#define CHECK(condition) \
  if (!(condition)) inflight::test::fail(__FILE__, __LINE__, "CHECK(" #condition ") failed")

#define CHECK_EQ(a, b)                                                                               \
  do {                                                                                               \
    const auto a_ = (a);                                                                             \
    const auto b_ = (b);                                                                             \
    if (!(a_ == b_)) {                                                                               \
      inflight::test::fail(__FILE__, __LINE__, inflight::concat(#a " == " #b ": ", a_, " != ", b_)); \
    }                                                                                                \
  } while (false)

// The statement throws inflight::Error with this code and a message that contains `text`.
#define CHECK_ERROR(statement, expected_code, text)                                             \
  do {                                                                                          \
    bool thrown_ = false;                                                                       \
    try {                                                                                       \
      statement;                                                                                \
    } catch (const inflight::Error& e) {                                                        \
      thrown_ = true;                                                                           \
      if (e.code() != (expected_code) || std::string(e.what()).find(text) == std::string::npos) \
        inflight::test::fail(__FILE__, __LINE__, std::string("unexpected error: ") + e.what()); \
    }                                                                                           \
    if (!thrown_) inflight::test::fail(__FILE__, __LINE__, #statement " did not throw");        \
  } while (false)

#define TEST_MAIN()                                                      \
  int main(int argc, char** argv) {                                      \
    for (const auto& [name, run] : inflight::test::registry()) {         \
      if (argc > 1 && name.find(argv[1]) == std::string::npos) continue; \
      std::cout << name << std::endl;                                    \
      run();                                                             \
    }                                                                    \
    return 0;                                                            \
  }
