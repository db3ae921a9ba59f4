#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

namespace inflight {

struct CodePointRange {
  int32_t first, last;  // both inclusive
  bool operator==(const CodePointRange&) const = default;
};

// A set of Unicode's code points without surrogates and U+0000, which no guided text has.
class CodePoints {
 public:
  CodePoints() = default;
  CodePoints(std::initializer_list<CodePointRange> ranges);
  static CodePoints all() { return {{1, 0xd7ff}, {0xe000, 0x10ffff}}; }

  const std::vector<CodePointRange>& ranges() const { return ranges_; }  // sorted, not adjacent
  bool empty() const { return ranges_.empty(); }
  bool contains(int32_t code_point) const;

  CodePoints operator|(const CodePoints& other) const;
  CodePoints operator&(const CodePoints& other) const;
  CodePoints operator~() const;

 private:
  std::vector<CodePointRange> ranges_;
};

}  // namespace inflight
