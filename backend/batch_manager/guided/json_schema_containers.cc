#include <algorithm>
#include <limits>

#include "batch_manager/guided/json_schema_reader.h"
#include "batch_manager/guided/regex.h"

namespace inflight {
namespace {

using xgrammar::ObjectSpec;
using xgrammar::SchemaSpec;
using xgrammar::SchemaSpecPtr;

constexpr int64_t kMaxCountedProperties = 200;  // their rules are as many as the square of it

bool has_property(const ObjectSpec& spec, const std::string& name) {
  return std::ranges::find(spec.properties, name, &ObjectSpec::Property::name) != spec.properties.end();
}

bool allows_further(const ObjectSpec& spec) { return spec.additional_properties_schema != nullptr; }

bool has_names_by_rule(const ObjectSpec& spec) {
  return allows_further(spec) || !spec.pattern_properties.empty() || spec.property_names != nullptr;
}

// A name may come twice, which counts once, unless `properties` lists it.
void check_counts(const SchemaNode& node, ObjectSpec& spec) {
  const auto num_listed = static_cast<int>(spec.properties.size());
  const auto num_required = static_cast<int>(spec.required.size());
  const bool is_open = has_names_by_rule(spec);
  if (spec.min_properties <= num_required) spec.min_properties = 0;
  if (!is_open && spec.max_properties >= num_listed) spec.max_properties = -1;
  if (spec.max_properties >= 0 && std::max(spec.min_properties, num_required) > spec.max_properties) {
    node.refuse("maxProperties", "is less than what else the schema asks for");
  }
  if (!is_open && spec.min_properties > num_listed) {
    node.refuse("minProperties", "is more than the properties that the schema allows");
  }
  if (is_open && spec.min_properties > num_required + 1) {
    node.refuse("minProperties", "is supported up to one more than the required properties where names are not listed");
  }
  const bool is_counted = spec.min_properties > 0 || spec.max_properties >= 0;
  if (is_counted && num_listed > kMaxCountedProperties) {
    node.refuse(spec.max_properties >= 0 ? "maxProperties" : "minProperties", "is supported with at most ",
                kMaxCountedProperties, " properties");
  }
}

}  // namespace

SchemaSpecPtr JsonSchemaReader::read_array(const SchemaNode& node) const {
  xgrammar::ArraySpec spec;
  spec.min_items = node.count("minItems").value_or(0);
  spec.max_items = node.count("maxItems").value_or(-1);
  const auto is_full = [&] { return spec.max_items >= 0 && std::ssize(spec.prefix_items) >= spec.max_items; };
  const bool lists_items = node.has("prefixItems") && node.at("prefixItems") != SchemaJson::array();
  bool is_closed = false;
  if (lists_items) {
    for (const SchemaNode& item : node.list("prefixItems")) {
      is_closed = item.value() == false;  // there can be no item here, nor after it
      if (is_closed || is_full()) break;
      spec.prefix_items.push_back(read(item));
    }
  }
  const char* further = node.has("items") ? "items" : "unevaluatedItems";
  is_closed = is_closed || is_full() || node.forbids(further);
  const bool is_open = !lists_items || spec.min_items > std::ssize(spec.prefix_items);
  if (!is_closed && node.has(further)) {
    spec.additional_items = read(node.child(further));
  } else if (!is_closed && is_open) {
    spec.additional_items = SchemaSpec::Make(xgrammar::AnySpec{}, "{}", "any");
  }
  spec.allow_additional_items = spec.additional_items != nullptr;
  if (!spec.allow_additional_items) spec.max_items = -1;

  const int64_t most = node.count("maxItems").value_or(std::numeric_limits<int64_t>::max());
  if (spec.min_items > most || (!spec.allow_additional_items && spec.min_items > std::ssize(spec.prefix_items))) {
    node.refuse("minItems", "is more than the items that the schema allows");
  }
  if (node.has("uniqueItems") && !node.forbids("uniqueItems") && most > 1 &&
      (spec.allow_additional_items || spec.prefix_items.size() > 1)) {
    node.refuse("uniqueItems", "is not supported");
  }
  return SchemaSpec::Make(std::move(spec), "", "array");
}

SchemaSpecPtr JsonSchemaReader::read_object(const SchemaNode& node) const {
  ObjectSpec spec;
  spec.allow_unevaluated_properties = false;
  spec.min_properties = static_cast<int>(node.count("minProperties").value_or(0));
  spec.max_properties = static_cast<int>(node.count("maxProperties").value_or(-1));
  read_properties(node, spec);
  read_patterns(node, spec);
  read_further_properties(node, spec);
  read_required(node, spec);
  spec.allow_additional_properties = allows_further(spec);
  check_counts(node, spec);
  return SchemaSpec::Make(std::move(spec), "", "object");
}

void JsonSchemaReader::read_properties(const SchemaNode& node, ObjectSpec& spec) const {
  for (const auto& [name, property] : node.object("properties")) {
    if (property.value() != false) spec.properties.push_back({name, read(property)});
  }
}

// All patterns that a name matches apply to it; the grammar takes them as alternatives, which is the same only if no
// name matches two of them.
void JsonSchemaReader::read_patterns(const SchemaNode& node, ObjectSpec& spec) const {
  struct Names {
    Regex whole;
    const SchemaNode* schema;
  };
  const auto properties = node.object("properties"), patterns = node.object("patternProperties");
  std::vector<Names> names;
  for (const auto& [name, schema] : properties) names.push_back({literal_regex(name), &schema});
  for (const auto& [pattern, schema] : patterns) {
    const std::string ebnf = pattern_ebnf(schema, "", pattern);
    if (schema.value() != false) spec.pattern_properties.push_back({ebnf, read(schema)});
    names.push_back({parse_regex(pattern), &schema});
  }
  for (const auto& [pattern, schema] : patterns) {
    const Regex part = parse_regex(pattern, Dialect::kAny);
    for (const Names& other : names) {
      if (other.schema->value() == schema.value() || other.schema->value() == false) continue;
      if (may_overlap(other.whole, part)) {
        schema.refuse("",
                      "applies to names that other schemas of this object apply to as well, which is not supported");
      }
    }
  }
}

void JsonSchemaReader::read_further_properties(const SchemaNode& node, ObjectSpec& spec) const {
  const char* further = node.has("additionalProperties") ? "additionalProperties" : "unevaluatedProperties";
  const bool lists_names = node.has_any({"properties", "patternProperties"});
  const bool asks_for_more = spec.min_properties > std::ssize(spec.properties);
  const bool has_patterns = node.has("patternProperties") && node.at("patternProperties") != SchemaJson::object();
  const bool is_open = node.has(further) || !lists_names || (asks_for_more && !has_patterns);
  if (is_open && !node.forbids(further)) {
    const bool is_any = !node.has(further) || node.at(further) == true;
    spec.additional_properties_schema =
        is_any ? SchemaSpec::Make(xgrammar::AnySpec{}, "{}", "any") : read(node.child(further));
  }
  if (allows_further(spec)) {
    if (has_patterns) node.refuse(further, "is not supported beside patternProperties");
    for (const auto& [name, property] : node.object("properties")) {
      if (property.value() == false) node.refuse(further, "is not supported beside a property that is false");
    }
  }
  if (!node.has("propertyNames") || node.at("propertyNames") == true) return;
  if (!spec.properties.empty() || has_patterns) {
    node.refuse("propertyNames", "is not supported beside properties or patternProperties");
  }
  if (node.forbids("propertyNames")) {
    spec.additional_properties_schema = nullptr;
  } else if (allows_further(spec)) {
    spec.property_names = read_name(node.child("propertyNames"));
  }
}

// A schema of names, which are strings.
SchemaSpecPtr JsonSchemaReader::read_name(const SchemaNode& node) const {
  SchemaNode target = node;
  for (int i = 0; target.has("$ref"); ++i) {
    if (i > 20) node.refuse_all("has a $ref that leads nowhere");
    target = referenced(root_, target);
  }
  if (!target.value().is_object()) target.refuse_all("must be an object");
  if (target.has_any({"const", "enum"})) {
    SchemaJson names = target.value();
    names["type"] = "string";
    const SchemaNode strings(names, "#/propertyNames", target.depth());
    return read(strings);
  }
  const std::vector<std::string> types = target.types();
  if (!types.empty() && types != std::vector<std::string>{"string"}) {
    target.refuse("type", "must be \"string\", as names are");
  }
  if (target.has_any({"anyOf", "oneOf", "allOf"})) target.refuse_all("has alternatives, which names cannot have here");
  return read_type(target, "string");
}

void JsonSchemaReader::read_required(const SchemaNode& node, ObjectSpec& spec) const {
  if (!node.has("required")) return;
  const SchemaJson& required = node.at("required");
  if (!required.is_array() || !std::ranges::all_of(required, [](const auto& name) { return name.is_string(); })) {
    node.refuse("required", "must be a list of strings");
  }
  for (const SchemaJson& item : required) {
    const auto& name = item.get_ref<const std::string&>();
    spec.required.insert(name);
    if (has_property(spec, name)) continue;
    const auto refuse = [&](const char* reason) { node.refuse("required", "names \"", name, "\", ", reason); };
    if (node.has("properties") && node.at("properties").contains(name)) refuse("which must not be there");
    if (!spec.pattern_properties.empty() || spec.property_names) refuse("which properties does not have");
    if (!allows_further(spec) && node.has_any({"additionalProperties", "unevaluatedProperties"})) {
      refuse("which must not be there");
    }
    const bool is_any = !allows_further(spec);
    spec.properties.push_back(
        {name, is_any ? SchemaSpec::Make(xgrammar::AnySpec{}, "{}", "any") : spec.additional_properties_schema});
  }
}

}  // namespace inflight
