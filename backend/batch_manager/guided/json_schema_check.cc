#include "batch_manager/guided/json_schema_check.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/error.h"

namespace inflight {
namespace {

using nlohmann::json;
using Keywords = std::vector<std::string_view>;

constexpr int kMaxDepth = 100;

// What a schema says by one of these keywords, the first that it has, xgrammar takes for all that it says.
const Keywords kExclusive = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"};

const Keywords kNeverFollowed = {"not",          "if",         "then", "else", "dependentRequired", "dependentSchemas",
                                 "dependencies", "$dynamicRef"};

// Keywords that apply to values of one type only.
struct TypeKeywords {
  std::string_view type;
  Keywords followed;
  Keywords not_followed;
};
const TypeKeywords kTypes[] = {
    {"integer", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}, {}},
    {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}, {}},
    {"string", {"pattern", "minLength", "maxLength"}, {}},
    {"array",
     {"prefixItems", "items", "unevaluatedItems", "minItems", "maxItems"},
     {"uniqueItems", "contains", "minContains", "maxContains", "additionalItems"}},
    {"object",
     {"properties", "required", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames",
      "minProperties", "maxProperties"},
     {}},
};

class SchemaCheck {
 public:
  explicit SchemaCheck(const json& root) : root_(root) {}

  // default_type: of a schema that names none, or empty.
  void check(const json& schema, const std::string& path, int depth = 0, const std::string& default_type = "") {
    if (depth > kMaxDepth) fail("schemas are nested deeper than ", kMaxDepth);
    if (!schema.is_object() || !seen_.insert(&schema).second) return;
    check_keywords(schema, path, default_type);
    check_required(schema, path);
    check_names(schema, path);

    for (const char* keyword : {"properties", "patternProperties", "anyOf", "oneOf", "allOf", "prefixItems"}) {
      const auto schemas = schema.find(keyword);
      if (schemas == schema.end() || !schemas->is_structured()) continue;
      if (schemas->is_array() && schemas->empty()) fail(path, "/", keyword, " is empty");
      for (const auto& [name, child] : schemas->items()) check(child, path + "/" + keyword + "/" + name, depth + 1);
    }
    for (const char* keyword : {"additionalProperties", "unevaluatedProperties", "items", "unevaluatedItems"}) {
      if (schema.contains(keyword)) check(schema[keyword], path + "/" + keyword, depth + 1);
    }
    if (schema.contains("propertyNames")) check(schema["propertyNames"], path + "/propertyNames", depth + 1, "string");
    check_reference(schema, path, depth);
  }

 private:
  template <class... Args>
  [[noreturn]] static void fail(const Args&... args) {
    throw_error(ErrorCode::kInvalidArgument, args...);
  }

  static void check_keywords(const json& schema, const std::string& path, const std::string& default_type) {
    for (const std::string_view keyword : kNeverFollowed) refuse(schema, keyword, path, "is not supported");

    const auto exclusive = std::ranges::find_if(kExclusive, [&](auto keyword) { return schema.contains(keyword); });
    if (exclusive != kExclusive.end()) {
      const std::string reason = concat("is not supported beside ", *exclusive);
      for (const std::string_view keyword : kExclusive) {
        if (keyword != *exclusive) refuse(schema, keyword, path, reason);
      }
      const bool names_values = *exclusive == "const" || *exclusive == "enum";
      if (!names_values) refuse(schema, "type", path, reason);
      for (const TypeKeywords& type : kTypes) refuse_all(schema, type, path, reason);
      return;
    }
    std::set<std::string> types = types_of(schema);
    if (types.empty() && !default_type.empty()) types = {default_type};
    for (const TypeKeywords& type : kTypes) {
      if (types.contains(std::string(type.type))) {
        for (const std::string_view keyword : type.not_followed) refuse(schema, keyword, path, "is not supported");
      } else if (types.empty()) {
        refuse_all(schema, type, path, "needs a type beside it");
      }
    }
  }

  static std::set<std::string> types_of(const json& schema) {
    const json type = schema.value("type", json());
    if (type.is_string()) return {type.get<std::string>()};
    std::set<std::string> types;
    if (type.is_array()) {
      for (const json& name : type) types.insert(name.is_string() ? name.get<std::string>() : "");
    } else if (has_any(schema, {"properties", "additionalProperties", "unevaluatedProperties"})) {
      types = {"object"};
    } else if (has_any(schema, {"items", "prefixItems", "unevaluatedItems"})) {
      types = {"array"};
    }
    return types;
  }

  static bool has_any(const json& schema, const Keywords& keywords) {
    return std::ranges::any_of(keywords, [&](auto keyword) { return schema.contains(keyword); });
  }

  static void refuse_all(const json& schema, const TypeKeywords& type, const std::string& path,
                         const std::string& reason) {
    for (const std::string_view keyword : type.followed) refuse(schema, keyword, path, reason);
    for (const std::string_view keyword : type.not_followed) refuse(schema, keyword, path, reason);
  }

  static void refuse_if(bool condition, std::string_view keyword, const std::string& path, const std::string& reason) {
    if (condition) fail(path, "/", keyword, " ", reason);
  }

  static void refuse(const json& schema, std::string_view keyword, const std::string& path, const std::string& reason) {
    const auto value = schema.find(keyword);
    refuse_if(value != schema.end() && *value != json(false), keyword, path, reason);
  }

  static void check_required(const json& schema, const std::string& path) {
    const json required = schema.value("required", json::array());
    if (!required.is_array()) return;
    const json properties = schema.value("properties", json::object());
    for (const json& name : required) {
      if (!name.is_string()) fail(path, "/required must be a list of strings");
      if (!properties.contains(name.get_ref<const std::string&>())) {
        fail(path, "/required names ", name.dump(), ", which ", path, "/properties does not have");
      }
    }
  }

  // xgrammar takes the rules for names as alternatives, where all of them apply to a name; and a name may come twice,
  // which counts once, unless `properties` lists it.
  static void check_names(const json& schema, const std::string& path) {
    const auto has = [&](const char* keyword) { return schema.contains(keyword) && schema[keyword] != json(false); };
    const auto has_names = [&](const char* keyword) { return has(keyword) && schema[keyword] != json::object(); };
    for (const char* rule : {"patternProperties", "propertyNames"}) {
      if (!has_names(rule)) continue;
      const std::string reason = concat("is not supported beside ", rule);
      refuse_if(has_names("properties"), "properties", path, reason);
      refuse_if(has("additionalProperties"), "additionalProperties", path, reason);
      refuse_if(has("unevaluatedProperties"), "unevaluatedProperties", path, reason);
    }
    for (const char* other : {"patternProperties", "additionalProperties", "unevaluatedProperties"}) {
      refuse_if(has_names("propertyNames") && schema.contains(other), other, path,
                "is not supported beside propertyNames");
    }
    const json least = schema.value("minProperties", json());
    const bool counts_names = least.is_number() && least.get<double>() > 1;
    for (const char* open : {"patternProperties", "propertyNames", "additionalProperties", "unevaluatedProperties"}) {
      refuse_if(counts_names && has(open), "minProperties", path, concat("above 1 is not supported beside ", open));
    }
  }

  void check_reference(const json& schema, const std::string& path, int depth) {
    const json reference = schema.value("$ref", json());
    if (!reference.is_string()) return;
    const std::string& target = reference.get_ref<const std::string&>();
    if (!target.starts_with('#')) fail(path, "/$ref is ", reference.dump(), "; it must point into the schema: #/…");
    if (target == "#" || !target.starts_with("#/")) return;
    const json::json_pointer pointer(target.substr(1));
    if (root_.contains(pointer)) check(root_[pointer], target, depth + 1);
  }

  const json& root_;
  std::set<const json*> seen_;
};

}  // namespace

void check_json_schema(const json& schema) { SchemaCheck(schema).check(schema, "#"); }

}  // namespace inflight
