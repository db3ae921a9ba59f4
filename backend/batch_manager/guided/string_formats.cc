#include "batch_manager/guided/string_formats.h"

#include <algorithm>
#include <array>

namespace inflight {
namespace {

// Parts that several formats share.
#define DATE                                                                                                      \
  "(?:(?:[1-9][0-9]{3})-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1" \
  "[02])-31))"
#define TIME "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9]))"
#define HOST "(?:[a-z](?:[a-z0-9]{0,20}[a-z0-9])?(?:\\.[a-z](?:[a-z0-9]{0,20}[a-z0-9])?){0,5})"
#define BYTE "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define GROUP "[0-9a-f]{1,4}"
#define PATH_CHARACTER "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})"
#define PATH "(?:/" PATH_CHARACTER "*)*"
#define QUERY "(?:\\?(?:" PATH_CHARACTER "|[/?])*)?(?:#(?:" PATH_CHARACTER "|[/?])*)?"
#define AUTHORITY "//" HOST "(?::[1-9][0-9]{0,3})?" PATH
#define POINTER "(?:/(?:[^~/]|~[01])*)*"

struct Format {
  std::string_view name, pattern;
};

constexpr Format kFormats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration",
     "P(?:[0-9]{1,6}W|(?:[0-9]{1,6}Y(?:[0-9]{1,6}M(?:[0-9]{1,6}D)?)?|[0-9]{1,6}M(?:[0-9]{1,6}D)?|[0-9]{1,6}D)"
     "(?:T[0-9]{1,6}H(?:[0-9]{1,6}M(?:[0-9]{1,6}S)?)?)?|T(?:[0-9]{1,6}H(?:[0-9]{1,6}M(?:[0-9]{1,6}S)?)?|"
     "[0-9]{1,6}M(?:[0-9]{1,6}S)?|[0-9]{1,6}S))"},
    {"email", "[A-Za-z0-9_+-]{1,30}(?:\\.[A-Za-z0-9_+-]{1,30}){0,1}@" HOST},
    {"hostname", HOST},
    {"ipv4", BYTE "(?:\\." BYTE "){3}"},
    {"ipv6", "(?:" GROUP ":){7}" GROUP "|(?:" GROUP ":){1,6}:" GROUP "|::(?:" GROUP "(?::" GROUP "){0,5})?"},
    {"uuid", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"},
    {"uri", "(?:https?|ftp):" AUTHORITY QUERY "|urn:[a-z0-9]{2,20}:[A-Za-z0-9._~:-]{1,60}"},
    {"uri-reference", "(?:https?|ftp):" AUTHORITY QUERY "|/" PATH_CHARACTER "+" PATH QUERY},
    {"json-pointer", POINTER},
    {"relative-json-pointer", "(?:0|[1-9][0-9]{0,8})(?:#|" POINTER ")"},
};

constexpr std::array<std::string_view, 6> kOtherFormats = {"idn-email",     "idn-hostname", "iri",
                                                           "iri-reference", "uri-template", "regex"};

}  // namespace

std::optional<std::string_view> format_pattern(std::string_view format) {
  const auto found = std::ranges::find(kFormats, format, &Format::name);
  if (found == std::end(kFormats)) return std::nullopt;
  return found->pattern;
}

bool is_standard_format(std::string_view format) {
  return format_pattern(format).has_value() || std::ranges::find(kOtherFormats, format) != kOtherFormats.end();
}

}  // namespace inflight
