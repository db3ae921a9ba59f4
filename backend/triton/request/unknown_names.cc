#include "triton/request/unknown_names.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/logging.h"
#include "common/near_miss.h"
#include "triton/request/input_names.h"
#include "triton/request/request_parameters.h"

namespace inflight::triton {
namespace {

constexpr size_t kMaxLogged = 100;       // names
constexpr size_t kMaxLoggedLength = 64;  // characters of a name

const std::vector<std::string_view>& known_names() {
  static const auto names = [] {
    std::vector<std::string_view> all(std::begin(kInputNames), std::end(kInputNames));
    all.insert(all.end(), std::begin(kRequestParameters), std::end(kRequestParameters));
    return all;
  }();
  return names;
}

std::string printable(std::string_view name) {
  std::string text(name.substr(0, kMaxLoggedLength));
  std::ranges::replace_if(text, [](unsigned char c) { return std::iscntrl(c) != 0; }, '?');
  return text;
}

}  // namespace

void log_once_unknown(std::string_view what, std::string_view name) {
  static std::mutex mutex;
  static std::set<std::string, std::less<>> logged;
  std::lock_guard lock(mutex);
  if (logged.size() >= kMaxLogged || !logged.insert(printable(name)).second) return;
  log_warning(what, " \"", printable(name), "\" is not known and has no effect; this is logged once");
}

void refuse_near_miss(std::string_view name) {
  const std::string_view meant = near_miss(name, known_names());
  if (meant.empty()) return log_once_unknown("request field or parameter", name);
  if (meant == name) {
    throw_error(ErrorCode::kInvalidArgument, "\"", name,
                "\" is no input of the model that was asked, and has no effect as a request parameter: send it as the "
                "input that the model's config.pbtxt has for it, such as stream, stop_words, top_k or top_p");
  }
  throw_error(ErrorCode::kInvalidArgument, "unknown field or request parameter \"", printable(name),
              "\"; did you mean ", meant, "?");
}

}  // namespace inflight::triton
