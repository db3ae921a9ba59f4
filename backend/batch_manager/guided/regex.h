#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "batch_manager/guided/code_points.h"

namespace inflight {

// A regular expression as a tree.
struct Regex {
  enum class Kind {
    kCharacter,     // one of `characters`
    kSequence,      // of all children; none: the empty text
    kAlternatives,  // one of the children
    kRepeat,        // the only child, min to max times
    kBegin,         // ^ where a text begins
    kEnd,           // $ where it ends
  };
  static constexpr int32_t kNoLimit = -1;

  Kind kind = Kind::kSequence;
  CodePoints characters = {};
  std::vector<Regex> children = {};
  int32_t min = 0;
  int32_t max = kNoLimit;
};

// Where dialects differ in which characters an expression matches (\w or \s beyond ASCII, a dot and line ends).
enum class Dialect {
  kAll,  // those that all of them match: what follows the tree matches by each of them
  kAny,  // those that some of them match
};

// Reads what Python's `re`, ECMAScript and PCRE have in common.
// Throws Error(kInvalidArgument) naming the position (a character, from 1) and what is not supported there.
Regex parse_regex(std::string_view text, Dialect dialect = Dialect::kAll);

// The tree of a text that stands for itself.
Regex literal_regex(std::string_view text);

// What matches `regex` as the right-hand side of a rule of xgrammar's EBNF. json_string: the text stands between the
// quotes of a JSON string, so that quotes, backslashes and control characters are escaped.
std::string to_ebnf(const Regex& regex, bool json_string);

// How many characters its texts have. max: Regex::kNoLimit for none.
struct TextLength {
  int64_t min, max;
};
TextLength text_length(const Regex& regex);

// Whether some text that matches `whole` from its first to its last character has a part that matches `part`, as JSON
// schemas search names for patterns. True also where the expressions are too large to tell. part: of Dialect::kAny.
bool may_overlap(const Regex& whole, const Regex& part);

// A code point as UTF-8, and back. The text must be valid UTF-8, which a parsed JSON document is.
std::string to_utf8(int32_t code_point);
std::vector<int32_t> code_points_of(std::string_view text);

}  // namespace inflight
