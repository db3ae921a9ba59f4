#pragma once

#include <nlohmann/json_fwd.hpp>

namespace inflight {

// Refuses a JSON schema (2020-12, https://json-schema.org) that xgrammar would guide by only in part: it leaves out
// keywords that it does not know, and those beside `$ref`, `const`, `enum`, `anyOf`, `oneOf` and `allOf`, without a
// word. What xgrammar refuses itself is left to it.
// Throws Error(kInvalidArgument) naming the keyword and where it is: #/properties/age/not.
void check_json_schema(const nlohmann::json& schema);

}  // namespace inflight
