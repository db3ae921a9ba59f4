#pragma once

#include <string>
#include <string_view>

#include "batch_manager/guided/code_points.h"

namespace inflight {

// A text as a string literal of xgrammar's EBNF. Throws Error(kInvalidArgument) for U+0000, which the library cannot
// hold.
std::string ebnf_literal(std::string_view text);

// A set that is not empty as a character class.
std::string ebnf_class(const CodePoints& characters);

}  // namespace inflight
