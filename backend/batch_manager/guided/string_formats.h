#pragma once

#include <optional>
#include <string_view>

namespace inflight {

// A regular expression for strings of a `format` that JSON Schema defines, or none for another name. Whoever checks the
// format accepts what matches; not all that it accepts matches: mail addresses are not quoted, say.
std::optional<std::string_view> format_pattern(std::string_view format);

// Whether JSON Schema defines the format, so that it must not be left out without a word.
bool is_standard_format(std::string_view format);

}  // namespace inflight
