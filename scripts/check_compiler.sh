#!/bin/sh
# Says in one line what is wrong with a C++ compiler, or nothing. Usage: check_compiler.sh COMPILER

echo '
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#error too old
#endif
#include <ranges>
int main() {}' | "${1:?}" -std=c++20 -x c++ -fsyntax-only - 2>/dev/null && exit
version=$("$1" -dumpfullversion 2>/dev/null || echo 'not found')
echo "C++ compiler $1 ($version) does not fit: install g++ 12 or newer (Debian, Ubuntu: apt install g++) or name one with make CXX=/path/to/g++" >&2
exit 1
