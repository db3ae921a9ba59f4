#include "batch_manager/guided/schema_node.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

namespace inflight {
namespace {

constexpr std::array<std::string_view, 7> kTypes = {"null",   "boolean", "object", "array",
                                                    "number", "string",  "integer"};
constexpr int kMaxReferences = 20;  // each to the next

std::string without_percents(const std::string& text) {
  const auto is_hexadecimal = [&](size_t i) {
    return i < text.size() && std::isxdigit(static_cast<unsigned char>(text[i])) != 0;
  };
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && is_hexadecimal(i + 1) && is_hexadecimal(i + 2)) {
      decoded += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

SchemaNode followed(const SchemaJson& root, SchemaNode node) {
  for (int i = 0; i < kMaxReferences && node.has("$ref"); ++i) node = referenced(root, node);
  return node;
}

// The values that are valid, where a schema lists them.
std::vector<SchemaJson> listed_values(const SchemaNode& node) {
  if (node.has("const")) return {node.at("const")};
  if (node.has("enum") && node.at("enum").is_array()) return {node.at("enum").begin(), node.at("enum").end()};
  return {};
}

bool is_required(const SchemaNode& node, const std::string& name) {
  if (!node.has("required") || !node.at("required").is_array()) return false;
  return std::ranges::find(node.at("required"), SchemaJson(name)) != node.at("required").end();
}

bool are_types_disjoint(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  const auto wider = [](const std::string& type) { return type == "integer" ? std::string("number") : type; };
  return std::ranges::none_of(a, [&](const std::string& type) {
    return std::ranges::any_of(b, [&](const std::string& other) { return wider(type) == wider(other); });
  });
}

}  // namespace

bool SchemaNode::has_any(std::initializer_list<const char*> keywords) const {
  return std::ranges::any_of(keywords, [this](const char* keyword) { return has(keyword); });
}

SchemaNode SchemaNode::child(const std::string& keyword) const {
  return {at(keyword), path_ + "/" + keyword, depth_ + 1};
}

std::vector<SchemaNode> SchemaNode::list(const std::string& keyword) const {
  std::vector<SchemaNode> nodes;
  if (!has(keyword)) return nodes;
  if (!at(keyword).is_array() || at(keyword).empty()) refuse(keyword, "must be a list of one or more schemas");
  for (size_t i = 0; i < at(keyword).size(); ++i) {
    nodes.emplace_back(at(keyword)[i], path_ + "/" + keyword + "/" + std::to_string(i), depth_ + 1);
  }
  return nodes;
}

std::vector<std::pair<std::string, SchemaNode>> SchemaNode::object(const std::string& keyword) const {
  std::vector<std::pair<std::string, SchemaNode>> nodes;
  if (!has(keyword)) return nodes;
  if (!at(keyword).is_object()) refuse(keyword, "must be an object of schemas");
  for (const auto& [name, schema] : at(keyword).items()) {
    nodes.emplace_back(name, SchemaNode(schema, path_ + "/" + keyword + "/" + name, depth_ + 1));
  }
  return nodes;
}

std::optional<int64_t> SchemaNode::count(const std::string& keyword) const {
  constexpr double kMost = 1 << 30;
  if (!has(keyword)) return std::nullopt;
  const double value = at(keyword).is_number() ? at(keyword).get<double>() : -1;
  if (value < 0 || value != std::floor(value)) refuse(keyword, "must be an integer, 0 or more");
  if (value > kMost) refuse(keyword, "is larger than ", static_cast<int64_t>(kMost));
  return static_cast<int64_t>(value);
}

const std::string& SchemaNode::text(const std::string& keyword) const {
  if (!at(keyword).is_string()) refuse(keyword, "must be a string");
  return at(keyword).get_ref<const std::string&>();
}

std::vector<std::string> SchemaNode::types() const {
  if (!has("type")) return {};
  std::vector<std::string> types;
  const SchemaJson& type = at("type");
  for (const SchemaJson& name : type.is_array() ? type : SchemaJson::array({type})) {
    const std::string text = name.is_string() ? name.get<std::string>() : name.dump();
    if (std::ranges::find(kTypes, text) == kTypes.end()) refuse("type", "has \"", text, "\", which is no type");
    types.push_back(text);
  }
  if (types.empty()) refuse("type", "names no type");
  return types;
}

bool is_of_type(const SchemaJson& value, std::string_view type) {
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "number") return value.is_number();
  return value.is_number_integer() || (value.is_number() && value.get<double>() == std::floor(value.get<double>()));
}

SchemaNode referenced(const SchemaJson& root, const SchemaNode& from) {
  const std::string& reference = from.text("$ref");
  const std::string pointer = without_percents(reference);
  if (pointer == "#") return {root, "#", from.depth() + 1};
  if (!pointer.starts_with("#/")) from.refuse("$ref", "is \"", reference, "\"; it must point into the schema: #/…");
  try {
    const SchemaJson::json_pointer place(pointer.substr(1));
    if (root.contains(place)) return {root.at(place), pointer, from.depth() + 1};
  } catch (const SchemaJson::exception&) {  // a ~ that is no escape
  }
  from.refuse("$ref", "is \"", reference, "\", which the schema does not have");
}

bool are_disjoint(const SchemaJson& root, const SchemaNode& first, const SchemaNode& second) {
  const SchemaNode a = followed(root, first), b = followed(root, second);
  const std::vector<SchemaJson> values_of_a = listed_values(a), values_of_b = listed_values(b);
  if (!values_of_a.empty() && !values_of_b.empty()) {
    return std::ranges::none_of(values_of_a, [&](const SchemaJson& value) {
      return std::ranges::find(values_of_b, value) != values_of_b.end();
    });
  }
  const auto types_of = [](const SchemaNode& node, const std::vector<SchemaJson>& values) {
    if (values.empty()) return node.types();
    std::vector<std::string> types;
    for (const std::string_view type : kTypes) {
      if (std::ranges::any_of(values, [&](const auto& value) { return is_of_type(value, type); }))
        types.emplace_back(type);
    }
    return types;
  };
  const auto types_of_a = types_of(a, values_of_a), types_of_b = types_of(b, values_of_b);
  if (types_of_a.empty() || types_of_b.empty()) return false;
  if (are_types_disjoint(types_of_a, types_of_b)) return true;
  if (types_of_a != std::vector<std::string>{"object"} || types_of_b != types_of_a) return false;
  for (const auto& [name, property] : a.object("properties")) {
    if (!is_required(a, name) || !is_required(b, name) || !b.has("properties")) continue;
    for (const auto& [other_name, other] : b.object("properties")) {
      if (name != other_name) continue;
      if (!listed_values(property).empty() && !listed_values(other).empty() && are_disjoint(root, property, other)) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace inflight
