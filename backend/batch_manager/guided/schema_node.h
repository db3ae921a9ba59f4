#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/error.h"

namespace inflight {

using SchemaJson = nlohmann::ordered_json;  // properties stay in their order

// A part of a JSON schema and where it is: #/properties/age. The document must live as long.
class SchemaNode {
 public:
  SchemaNode(const SchemaJson& value, std::string path, int depth = 0)
      : value_(&value), path_(std::move(path)), depth_(depth) {}

  const SchemaJson& value() const { return *value_; }
  int depth() const { return depth_; }
  bool has(const std::string& keyword) const { return value_->is_object() && value_->contains(keyword); }
  bool has_any(std::initializer_list<const char*> keywords) const;
  const SchemaJson& at(const std::string& keyword) const { return value_->at(keyword); }
  // Whether the keyword's schema is `false`.
  bool forbids(const std::string& keyword) const { return has(keyword) && at(keyword) == false; }

  SchemaNode child(const std::string& keyword) const;
  // The schemas in a list, or by name in an object; none if the keyword is not there. Throws Error for another value.
  std::vector<SchemaNode> list(const std::string& keyword) const;
  std::vector<std::pair<std::string, SchemaNode>> object(const std::string& keyword) const;

  // A number of characters, items or properties; none: not given. Throws Error if it is no such number.
  std::optional<int64_t> count(const std::string& keyword) const;
  // Throws Error for another value than a text.
  const std::string& text(const std::string& keyword) const;
  // `type`, alone or in a list; none: all types. Throws Error for what is no type.
  std::vector<std::string> types() const;

  template <class... Args>
  [[noreturn]] void refuse(const std::string& keyword, const Args&... reason) const {
    throw_error(ErrorCode::kInvalidArgument, path_, "/", keyword, " ", reason...);
  }
  template <class... Args>
  [[noreturn]] void refuse_all(const Args&... reason) const {
    throw_error(ErrorCode::kInvalidArgument, path_, " ", reason...);
  }

 private:
  const SchemaJson* value_;
  std::string path_;
  int depth_;  // in other schemas
};

// Whether JSON Schema counts the value among a type's. integer: also 1.0.
bool is_of_type(const SchemaJson& value, std::string_view type);

// The part of `root` that a $ref of `from` names: "#", or "#/" and a JSON pointer (RFC 6901), percent-encoded or not.
// Throws Error if there is none.
SchemaNode referenced(const SchemaJson& root, const SchemaNode& from);

// Whether no value is valid by both schemas, as far as types, listed values and required properties with listed values
// tell.
bool are_disjoint(const SchemaJson& root, const SchemaNode& a, const SchemaNode& b);

}  // namespace inflight
