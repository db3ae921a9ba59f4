#pragma once

#include <charconv>
#include <concepts>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/error.h"

namespace inflight::triton {

// The `parameters` of a config.pbtxt: name → string_value. A value of "" and a template variable left unfilled,
// "${…", count as absent.
class Parameters {
 public:
  Parameters(const nlohmann::json& config, std::filesystem::path file);

  // As written in the file, "" when it is not there.
  std::string raw(const std::string& name) const;
  std::optional<std::string> text(const std::string& name) const;
  std::optional<std::string> lower_case_text(const std::string& name) const;
  std::optional<bool> boolean(const std::string& name) const;  // true, false, 1, 0 in any case

  template <class Number>
  std::optional<Number> number(const std::string& name) const {
    const auto value = text(name);
    if (!value) return std::nullopt;
    return parse_number<Number>(name, *value);
  }

  template <class Number>
  std::optional<Number> at_least(Number minimum, const std::string& name) const {
    const auto value = number<Number>(name);
    if (value && *value < minimum) refuse(name, concat(minimum, " or more"));
    return value;
  }

  template <class Number>
  Number parse_number(const std::string& name, const std::string& value) const {
    Number number{};
    const char* end = value.data() + value.size();
    const auto [parsed, status] = std::from_chars(value.data(), end, number);
    if (status != std::errc() || parsed != end) {
      refuse(name, std::floating_point<Number> ? "a number" : "an integer");
    }
    return number;
  }

  // Throws kInvalidArgument: "FILE: parameter NAME is "VALUE"; it must be EXPECTED".
  [[noreturn]] void refuse(const std::string& name, const std::string& expected) const;

  const std::filesystem::path& file() const { return file_; }

  // The names that are in the file and that nobody has asked for.
  std::vector<std::string> never_read() const;

 private:
  nlohmann::json parameters_;
  mutable std::set<std::string> read_;
  std::filesystem::path file_;
};

}  // namespace inflight::triton
