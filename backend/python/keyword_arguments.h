#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/error.h"

// Python arguments become the fields of C++ structs; what does not fit is named with its value and what fits.
namespace inflight::python {

// What Python values of type T are called in an error.
template <class T>
const char* expected();
template <>
inline const char* expected<bool>() {
  return "True or False";
}
template <>
inline const char* expected<int32_t>() {
  return "an integer from -2^31 to 2^31 - 1";
}
template <>
inline const char* expected<int64_t>() {
  return "an integer from -2^63 to 2^63 - 1";
}
template <>
inline const char* expected<uint64_t>() {
  return "an integer from 0 to 2^64 - 1";
}
template <>
inline const char* expected<float>() {
  return "a number";
}
template <>
inline const char* expected<std::filesystem::path>() {
  return "a str or a Path";
}
template <>
inline const char* expected<std::optional<int32_t>>() {
  return "None or an integer from -2^31 to 2^31 - 1";
}
template <>
inline const char* expected<std::optional<int64_t>>() {
  return "None or an integer from -2^63 to 2^63 - 1";
}
template <>
inline const char* expected<std::vector<int32_t>>() {
  return "a list of integers";
}
template <>
inline const char* expected<std::vector<uint64_t>>() {
  return "a list of integers from 0 to 2^64 - 1";
}
template <>
inline const char* expected<std::vector<std::vector<int32_t>>>() {
  return "a list of lists of integers";
}

template <>
inline const char* expected<std::vector<std::string>>() {
  return "a list of strings";
}

// Throws Error (kInvalidArgument): "top_k is 'many'; it must be an integer …".
[[noreturn]] inline void refuse(const std::string& name, nanobind::handle value, const char* allowed) {
  const nanobind::object shortened = nanobind::module_::import_("reprlib").attr("repr")(value);
  throw_error(ErrorCode::kInvalidArgument, name, " is ", nanobind::cast<std::string>(shortened), "; it must be ",
              allowed);
}

template <class T>
T argument(const std::string& name, nanobind::handle value, const char* allowed = expected<T>()) {
  T result{};
  if (!nanobind::try_cast<T>(value, result)) refuse(name, value, allowed);
  return result;
}

// Sets fields of a Target from keyword arguments of their names.
template <class Target>
class KeywordArguments {
 public:
  using Setter = std::function<void(Target&, const std::string& name, nanobind::handle value)>;

  // what: of the error for an unknown name, "'beam' is no <what>; there are …".
  KeywordArguments(std::string what, std::map<std::string, Setter> setters)
      : what_(std::move(what)), setters_(std::move(setters)) {}

  // Throws Error (kInvalidArgument) for a name that it does not know or a value that does not fit.
  void read(Target& target, const nanobind::kwargs& arguments) const {
    for (const auto& [key, value] : arguments) {
      const std::string name = nanobind::cast<std::string>(key);
      const auto setter = setters_.find(name);
      if (setter == setters_.end()) refuse_name(name);
      setter->second(target, name, value);
    }
  }

 private:
  [[noreturn]] void refuse_name(const std::string& name) const {
    std::string known;
    for (const auto& [known_name, setter] : setters_) known += (known.empty() ? "" : ", ") + known_name;
    throw_error(ErrorCode::kInvalidArgument, "'", name, "' is no ", what_, "; there are ", known);
  }

  const std::string what_;
  const std::map<std::string, Setter> setters_;
};

// A setter of target.*part.*field, or of target.*field.
template <class Target, class Part, class T>
typename KeywordArguments<Target>::Setter setter(Part Target::* part, T Part::* field) {
  return [part, field](Target& target, const std::string& name, nanobind::handle value) {
    target.*part.*field = argument<T>(name, value);
  };
}
template <class Target, class T>
typename KeywordArguments<Target>::Setter setter(T Target::* field) {
  return [field](Target& target, const std::string& name, nanobind::handle value) {
    target.*field = argument<T>(name, value);
  };
}

}  // namespace inflight::python
