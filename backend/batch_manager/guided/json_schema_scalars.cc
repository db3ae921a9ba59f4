#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "batch_manager/guided/json_schema_reader.h"
#include "batch_manager/guided/regex.h"
#include "batch_manager/guided/string_formats.h"

namespace inflight {
namespace {

using xgrammar::SchemaSpec;
using xgrammar::SchemaSpecPtr;

constexpr double kMaxBound = 9007199254740992.0;  // 2^53
constexpr double kMaxMultipleOf = 1024;           // each takes as many rules
constexpr int64_t kMaxMultiples = 10'000;         // of a range, which are listed
constexpr double kDecimals = 1e6;                 // xgrammar's ranges have six places after the point

std::optional<double> bound(const SchemaNode& node, const std::string& keyword) {
  if (!node.has(keyword)) return std::nullopt;
  if (!node.at(keyword).is_number()) node.refuse(keyword, "must be a number");
  const double value = node.at(keyword).get<double>();
  if (std::abs(value) >= kMaxBound) node.refuse(keyword, "must be less than 2^53 and more than -2^53");
  return value;
}

std::optional<int64_t> multiple_of(const SchemaNode& node) {
  if (!node.has("multipleOf")) return std::nullopt;
  const double value = node.at("multipleOf").is_number() ? node.at("multipleOf").get<double>() : 0;
  if (value <= 0) node.refuse("multipleOf", "must be a number above 0");
  if (value != std::floor(value) || value > kMaxMultipleOf) {
    node.refuse("multipleOf", "is supported for integers from 1 to ", static_cast<int>(kMaxMultipleOf));
  }
  return value == 1 ? std::nullopt : std::optional(static_cast<int64_t>(value));
}

void check_multiples(const SchemaNode& node, const xgrammar::IntegerSpec& spec) {
  if (!spec.minimum && !spec.maximum) return;
  if (!spec.minimum || !spec.maximum || *spec.maximum - *spec.minimum >= kMaxMultiples) {
    node.refuse("multipleOf", "is supported without bounds, or with a range of at most ", kMaxMultiples, " integers");
  }
  for (int64_t value = *spec.minimum; value <= *spec.maximum; ++value) {
    if (value % *spec.multiple_of == 0) return;
  }
  node.refuse("multipleOf", "has no multiple in the range beside it");
}

void check_decimals(const SchemaNode& node, const std::string& keyword, std::optional<double> bound) {
  if (bound && std::round(*bound * kDecimals) / kDecimals != *bound) {
    node.refuse(keyword, "is supported with at most six places after the point");
  }
}

void check_lengths(const SchemaNode& node, const xgrammar::StringSpec& spec, const std::string& keyword,
                   const Regex& regex) {
  const TextLength length = text_length(regex);
  const bool is_long_enough = length.min >= spec.min_length;
  const bool is_short_enough = spec.max_length < 0 || (length.max != Regex::kNoLimit && length.max <= spec.max_length);
  if (is_long_enough && is_short_enough) return;
  const std::string limit = is_long_enough ? "maxLength" : "minLength";
  node.refuse(limit, "is supported beside ", keyword, " where all that matches is within it; say it in the ", keyword);
}

// The regular expression that the string must match, and the keyword that says so.
std::optional<std::pair<std::string, std::string>> expression(const SchemaNode& node) {
  std::optional<std::pair<std::string, std::string>> result;
  if (node.has("pattern")) result = {"pattern", node.text("pattern")};
  if (!node.has("format")) return result;
  const std::string& format = node.text("format");
  if (!is_standard_format(format)) return result;
  if (result) node.refuse("format", "is not supported beside pattern");
  const auto pattern = format_pattern(format);
  if (!pattern) node.refuse("format", "\"", format, "\" is not supported");
  return std::pair("format", std::string(*pattern));
}

}  // namespace

SchemaSpecPtr read_integer(const SchemaNode& node) {
  const auto least = bound(node, "minimum"), most = bound(node, "maximum");
  const auto above = bound(node, "exclusiveMinimum"), below = bound(node, "exclusiveMaximum");
  xgrammar::IntegerSpec spec;
  const auto raise = [&](double value) {
    spec.minimum = std::max(spec.minimum.value_or(std::numeric_limits<int64_t>::min()), static_cast<int64_t>(value));
  };
  const auto lower = [&](double value) {
    spec.maximum = std::min(spec.maximum.value_or(std::numeric_limits<int64_t>::max()), static_cast<int64_t>(value));
  };
  if (least) raise(std::ceil(*least));
  if (above) raise(std::floor(*above) + 1);
  if (most) lower(std::floor(*most));
  if (below) lower(std::ceil(*below) - 1);
  if (spec.minimum && spec.maximum && *spec.minimum > *spec.maximum) {
    node.refuse_all("has bounds that no integer is within");
  }
  spec.multiple_of = multiple_of(node);
  if (spec.multiple_of) check_multiples(node, spec);
  const bool is_any = !spec.minimum && !spec.maximum && !spec.multiple_of;
  return SchemaSpec::Make(std::move(spec), is_any ? R"({"type":"integer"})" : "", "integer");
}

SchemaSpecPtr read_number(const SchemaNode& node) {
  xgrammar::NumberSpec spec;
  spec.minimum = bound(node, "minimum");
  spec.maximum = bound(node, "maximum");
  spec.exclusive_minimum = bound(node, "exclusiveMinimum");
  spec.exclusive_maximum = bound(node, "exclusiveMaximum");
  check_decimals(node, "minimum", spec.minimum);
  check_decimals(node, "maximum", spec.maximum);
  check_decimals(node, "exclusiveMinimum", spec.exclusive_minimum);
  check_decimals(node, "exclusiveMaximum", spec.exclusive_maximum);
  const double infinity = std::numeric_limits<double>::infinity();
  const double least = spec.minimum.value_or(-infinity), most = spec.maximum.value_or(infinity);
  const double above = spec.exclusive_minimum.value_or(-infinity), below = spec.exclusive_maximum.value_or(infinity);
  if (least > most || least >= below || above >= most || above >= below) {
    node.refuse_all("has bounds that no number is within");
  }
  const bool is_any = !spec.minimum && !spec.maximum && !spec.exclusive_minimum && !spec.exclusive_maximum;
  return SchemaSpec::Make(std::move(spec), is_any ? R"({"type":"number"})" : "", "number");
}

SchemaSpecPtr read_string(const SchemaNode& node) {
  xgrammar::StringSpec spec;
  spec.min_length = static_cast<int>(node.count("minLength").value_or(0));
  spec.max_length = static_cast<int>(node.count("maxLength").value_or(-1));
  if (spec.max_length >= 0 && spec.min_length > spec.max_length) {
    node.refuse("minLength", "is larger than maxLength");
  }
  if (const auto said = expression(node)) {
    const auto& [keyword, pattern] = *said;
    spec.pattern = pattern_ebnf(node, keyword, pattern);
    check_lengths(node, spec, keyword, parse_regex(pattern));
  }
  const bool is_any = !spec.pattern && spec.min_length == 0 && spec.max_length < 0;
  return SchemaSpec::Make(std::move(spec), is_any ? R"({"type":"string"})" : "", "string");
}

std::string pattern_ebnf(const SchemaNode& node, const std::string& keyword, std::string_view pattern) {
  try {
    return to_ebnf(parse_regex(pattern), /*json_string=*/true);
  } catch (const Error& error) {
    node.refuse(keyword, "\"", pattern, "\": ", error.what());
  }
}

}  // namespace inflight
