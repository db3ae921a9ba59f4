#pragma once

#include <json_schema_converter.h>  // of xgrammar's sources

#include <string>

#include "batch_manager/guided/schema_node.h"

namespace inflight {

// Reads a JSON schema (2020-12, https://json-schema.org) into what xgrammar makes grammars of, all that it says or
// nothing: a keyword of the standard that the grammar would not follow is an Error(kInvalidArgument) that names it and
// where it is (#/properties/age/not). What the standard does not define is an annotation, as it says.
//
// Strings: `pattern` is the EBNF of what stands between the quotes. Where a schema says nothing of further properties
// or items, there are none, unless it says nothing of any or asks for more than it lists.
class JsonSchemaReader {
 public:
  explicit JsonSchemaReader(const SchemaJson& root) : root_(root) {}  // which must live as long

  xgrammar::SchemaSpecPtr read() const { return read(SchemaNode(root_, "#")); }
  // What a $ref names. uri: as a RefSpec of this reader has it.
  xgrammar::SchemaSpecPtr read_referenced(const std::string& uri) const;

 private:
  xgrammar::SchemaSpecPtr read(const SchemaNode& node) const;
  xgrammar::SchemaSpecPtr read_values(const SchemaNode& node) const;
  xgrammar::SchemaSpecPtr read_choice(const SchemaNode& node, const std::string& keyword) const;
  xgrammar::SchemaSpecPtr read_types(const SchemaNode& node, const std::vector<std::string>& types) const;
  xgrammar::SchemaSpecPtr read_type(const SchemaNode& node, const std::string& type) const;
  xgrammar::SchemaSpecPtr read_array(const SchemaNode& node) const;
  xgrammar::SchemaSpecPtr read_object(const SchemaNode& node) const;
  xgrammar::SchemaSpecPtr read_name(const SchemaNode& node) const;

  void read_properties(const SchemaNode& node, xgrammar::ObjectSpec& spec) const;
  void read_patterns(const SchemaNode& node, xgrammar::ObjectSpec& spec) const;
  void read_further_properties(const SchemaNode& node, xgrammar::ObjectSpec& spec) const;
  void read_required(const SchemaNode& node, xgrammar::ObjectSpec& spec) const;

  const SchemaJson& root_;
};

// Of one schema of this type, by its own keywords alone.
xgrammar::SchemaSpecPtr read_integer(const SchemaNode& node);
xgrammar::SchemaSpecPtr read_number(const SchemaNode& node);
xgrammar::SchemaSpecPtr read_string(const SchemaNode& node);

// The EBNF of a regular expression in a JSON string. Throws Error naming `keyword`.
std::string pattern_ebnf(const SchemaNode& node, const std::string& keyword, std::string_view pattern);

}  // namespace inflight
