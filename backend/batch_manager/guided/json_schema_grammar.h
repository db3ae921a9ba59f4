#pragma once

#include <xgrammar/grammar.h>

#include <string>

namespace inflight {

// The grammar of JSON texts that are valid by a JSON schema; see JsonSchemaReader. Between two tokens of JSON there are
// at most max_whitespace blanks.
// Throws Error(kInvalidArgument) for a schema that is malformed, or that the grammar would follow in part.
xgrammar::Grammar json_schema_grammar(const std::string& schema, int max_whitespace);

// Of any JSON object.
xgrammar::Grammar json_object_grammar(int max_whitespace);

}  // namespace inflight
