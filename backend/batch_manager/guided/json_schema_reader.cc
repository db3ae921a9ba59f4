#include "batch_manager/guided/json_schema_reader.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace inflight {
namespace {

using xgrammar::SchemaSpec;
using xgrammar::SchemaSpecPtr;
using Keywords = std::vector<std::string>;

constexpr int kMaxDepth = 100;
constexpr double kMaxExact = 9007199254740992.0;  // 2^53: larger numbers may not be those that the schema has

// A schema has one of these, which then says all.
const Keywords kExclusive = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"};

const Keywords kNeverFollowed = {
    "not",          "if",          "then",          "else",     "dependentRequired", "dependentSchemas",
    "dependencies", "$dynamicRef", "$recursiveRef", "disallow", "extends",           "divisibleBy"};

// Keywords that apply to values of one type only.
struct TypeKeywords {
  std::string type;
  Keywords followed;
  Keywords not_followed;
};
const TypeKeywords kTypes[] = {
    {"integer", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}, {}},
    {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}, {"multipleOf"}},
    {"string", {"pattern", "format", "minLength", "maxLength"}, {}},
    {"array",
     {"prefixItems", "items", "unevaluatedItems", "minItems", "maxItems", "uniqueItems"},
     {"contains", "minContains", "maxContains", "additionalItems"}},
    {"object",
     {"properties", "required", "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames",
      "minProperties", "maxProperties"},
     {}},
};

bool contains(const Keywords& keywords, const std::string& keyword) {
  return std::ranges::find(keywords, keyword) != keywords.end();
}

// A value of `false` asks for nothing: uniqueItems, not.
void refuse_if_there(const SchemaNode& node, const Keywords& keywords, const std::string& reason) {
  for (const std::string& keyword : keywords) {
    if (node.has(keyword) && !node.forbids(keyword)) node.refuse(keyword, reason);
  }
}

void check_exclusive(const SchemaNode& node, const std::string& exclusive) {
  const std::string reason = "is not supported beside " + exclusive;
  for (const std::string& keyword : kExclusive) {
    if (keyword != exclusive) refuse_if_there(node, {keyword}, reason);
  }
  const bool lists_values = exclusive == "const" || exclusive == "enum";
  if (!lists_values) refuse_if_there(node, {"type"}, reason);
  for (const TypeKeywords& type : kTypes) {
    for (const std::string& keyword : type.followed) {
      if (node.has(keyword)) node.refuse(keyword, reason);
    }
    refuse_if_there(node, type.not_followed, reason);
  }
}

// Those that the schema names, or those that its keywords are of; none: it says nothing.
Keywords types_of(const SchemaNode& node) {
  Keywords types = node.types();
  if (!types.empty()) return types;
  if (node.has_any({"properties", "additionalProperties", "unevaluatedProperties"})) return {"object"};
  if (node.has_any({"items", "prefixItems", "unevaluatedItems"})) return {"array"};
  return {};
}

void check_type_keywords(const SchemaNode& node, const Keywords& types) {
  for (const TypeKeywords& type : kTypes) {
    if (contains(types, type.type)) {
      refuse_if_there(node, type.not_followed, "is not supported");
    } else if (types.empty()) {
      refuse_if_there(node, type.followed, "needs a type beside it");
      refuse_if_there(node, type.not_followed, "needs a type beside it");
    }
  }
}

void check_exact(const SchemaNode& node, const std::string& keyword, const SchemaJson& value) {
  if (value.is_number_float() && std::abs(value.get<double>()) >= kMaxExact) {
    node.refuse(keyword, "has a number of 2^53 or more, which has no exact value everywhere");
  }
  if (value.is_structured()) {
    for (const SchemaJson& part : value) check_exact(node, keyword, part);
  }
}

}  // namespace

SchemaSpecPtr JsonSchemaReader::read_referenced(const std::string& uri) const {
  const SchemaJson reference = {{"$ref", uri}};
  return read(referenced(root_, SchemaNode(reference, "#")));
}

SchemaSpecPtr JsonSchemaReader::read(const SchemaNode& node) const {
  if (node.depth() > kMaxDepth) throw_error(ErrorCode::kInvalidArgument, "schemas are nested deeper than ", kMaxDepth);
  if (node.value() == true) return SchemaSpec::Make(xgrammar::AnySpec{}, "{}", "any");
  if (node.value() == false) node.refuse_all("is false: no value is valid");
  if (!node.value().is_object()) node.refuse_all("is no schema: it must be an object, true or false");
  refuse_if_there(node, kNeverFollowed, "is not supported");
  if (node.has("$id") && &node.value() != &root_) node.refuse("$id", "is supported at the root only");

  const auto exclusive = std::ranges::find_if(kExclusive, [&](const auto& keyword) { return node.has(keyword); });
  if (exclusive == kExclusive.end()) {
    const Keywords types = types_of(node);
    check_type_keywords(node, types);
    return read_types(node, types);
  }
  check_exclusive(node, *exclusive);
  if (*exclusive == "$ref") {
    referenced(root_, node);
    return SchemaSpec::Make(xgrammar::RefSpec{node.text("$ref")}, "", "ref");
  }
  if (*exclusive == "const" || *exclusive == "enum") return read_values(node);
  return read_choice(node, *exclusive);
}

SchemaSpecPtr JsonSchemaReader::read_values(const SchemaNode& node) const {
  const std::string keyword = node.has("const") ? "const" : "enum";
  SchemaJson values = node.at(keyword);
  if (keyword == "const") values = SchemaJson::array({values});
  if (!values.is_array() || values.empty()) node.refuse(keyword, "must be a list of one or more values");
  const Keywords types = node.types();
  xgrammar::EnumSpec spec;
  for (const SchemaJson& value : values) {
    check_exact(node, keyword, value);
    const auto is_of = [&](const std::string& type) { return is_of_type(value, type); };
    if (types.empty() || std::ranges::any_of(types, is_of)) spec.json_values.push_back(value.dump());
  }
  if (spec.json_values.empty()) node.refuse(keyword, "has no value of the type beside it");
  return SchemaSpec::Make(std::move(spec), "", "values");
}

SchemaSpecPtr JsonSchemaReader::read_choice(const SchemaNode& node, const std::string& keyword) const {
  std::vector<SchemaNode> nodes = node.list(keyword);
  if (keyword == "allOf" && nodes.size() > 1) {
    node.refuse(keyword, "of more than one schema is not supported; write them as one");
  }
  std::erase_if(nodes, [](const SchemaNode& option) { return option.value() == false; });
  if (nodes.empty()) node.refuse(keyword, "has only schemas that are false");
  if (keyword == "oneOf") {
    for (size_t i = 0; i < nodes.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (are_disjoint(root_, nodes[i], nodes[j])) continue;
        node.refuse(keyword,
                    "is supported where its schemas differ in `type`, in the values of `const` or `enum`, or in "
                    "those of a required property; use anyOf");
      }
    }
  }
  if (nodes.size() == 1) return read(nodes.front());
  xgrammar::AnyOfSpec spec;
  for (const SchemaNode& option : nodes) spec.options.push_back(read(option));
  return SchemaSpec::Make(std::move(spec), "", "case");
}

SchemaSpecPtr JsonSchemaReader::read_types(const SchemaNode& node, const Keywords& types) const {
  if (types.empty()) return SchemaSpec::Make(xgrammar::AnySpec{}, "{}", "any");
  if (types.size() == 1) return read_type(node, types.front());
  xgrammar::TypeArraySpec spec;
  for (const std::string& type : types) spec.type_schemas.push_back(read_type(node, type));
  return SchemaSpec::Make(std::move(spec), "", "type");
}

SchemaSpecPtr JsonSchemaReader::read_type(const SchemaNode& node, const std::string& type) const {
  if (type == "null") return SchemaSpec::Make(xgrammar::NullSpec{}, "", "null");
  if (type == "boolean") return SchemaSpec::Make(xgrammar::BooleanSpec{}, "", "boolean");
  if (type == "integer") return read_integer(node);
  if (type == "number") return read_number(node);
  if (type == "string") return read_string(node);
  if (type == "array") return read_array(node);
  return read_object(node);
}

}  // namespace inflight
