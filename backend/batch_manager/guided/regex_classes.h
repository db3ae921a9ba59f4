#pragma once

#include <optional>

#include "batch_manager/guided/code_points.h"

namespace inflight {

// The characters that a part of an expression matches in all dialects, and in some.
struct MatchedCharacters {
  CodePoints certain, possible;

  MatchedCharacters operator|(const MatchedCharacters& other) const {
    return {certain | other.certain, possible | other.possible};
  }
  MatchedCharacters operator~() const { return {~possible, ~certain}; }
};

// Of the class escapes d, D, w, W, s and S; none for another letter.
std::optional<MatchedCharacters> class_escape(int32_t letter);

// Of a dot.
MatchedCharacters any_character();

}  // namespace inflight
