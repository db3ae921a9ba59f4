#include "triton/model/parameters.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace inflight::triton {

Parameters::Parameters(const nlohmann::json& config, std::filesystem::path file)
    : parameters_(config.value("parameters", nlohmann::json::object())), file_(std::move(file)) {}

std::string Parameters::raw(const std::string& name) const {
  read_.insert(name);
  const auto parameter = parameters_.find(name);
  return parameter == parameters_.end() ? "" : parameter->value("string_value", "");
}

std::optional<std::string> Parameters::text(const std::string& name) const {
  std::string value = raw(name);
  if (value.empty() || value.starts_with("${")) return std::nullopt;
  return value;
}

std::optional<std::string> Parameters::lower_case_text(const std::string& name) const {
  auto value = text(name);
  if (value) {
    std::transform(value->begin(), value->end(), value->begin(), [](unsigned char c) { return std::tolower(c); });
  }
  return value;
}

std::optional<bool> Parameters::boolean(const std::string& name) const {
  const auto value = lower_case_text(name);
  if (!value) return std::nullopt;
  if (*value == "true" || *value == "1") return true;
  if (*value == "false" || *value == "0") return false;
  refuse(name, "true or false");
}

void Parameters::refuse(const std::string& name, const std::string& expected) const {
  throw_error(ErrorCode::kInvalidArgument, file_.string(), ": parameter ", name, " is \"", raw(name), "\"; it must be ",
              expected);
}

std::vector<std::string> Parameters::never_read() const {
  std::vector<std::string> names;
  for (const auto& [name, parameter] : parameters_.items()) {
    if (!read_.contains(name)) names.push_back(name);
  }
  return names;
}

}  // namespace inflight::triton
