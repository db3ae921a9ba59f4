#include "triton/request/guided_decoding_reader.h"

#include <string>
#include <unordered_map>

#include "common/error.h"

namespace inflight::triton {
namespace {

constexpr const char* kType = "guided_decoding_guide_type";
constexpr const char* kGuide = "guided_decoding_guide";

GuidedDecoding::Type guide_type(const std::string& name) {
  static const std::unordered_map<std::string, GuidedDecoding::Type> types = {
      {"json", GuidedDecoding::Type::kJson},     {"json_schema", GuidedDecoding::Type::kJsonSchema},
      {"regex", GuidedDecoding::Type::kRegex},   {"ebnf_grammar", GuidedDecoding::Type::kGrammar},
      {"choice", GuidedDecoding::Type::kChoice},
  };
  const auto type = types.find(name);
  if (type != types.end()) return type->second;
  throw_error(ErrorCode::kInvalidArgument, kType, " is \"", name,
              "\"; it must be json, json_schema, regex, ebnf_grammar or choice");
}

}  // namespace

std::optional<GuidedDecoding> read_guided_decoding(const SequenceTensors& tensors) {
  const std::string type = tensors.scalar<std::string>(kType).value_or("");
  std::string guide = tensors.scalar<std::string>(kGuide).value_or("");
  if (type.empty()) {
    if (guide.empty()) return std::nullopt;
    throw_error(ErrorCode::kInvalidArgument, kGuide, " is given without ", kType, "; give both");
  }
  const GuidedDecoding decoding{guide_type(type), guide};
  if ((decoding.type == GuidedDecoding::Type::kJson) != guide.empty()) {
    throw_error(ErrorCode::kInvalidArgument, kType, " is \"", type, "\", ",
                guide.empty() ? "which needs a guide: give " : "which takes any JSON object: leave out ", kGuide);
  }
  return decoding;
}

}  // namespace inflight::triton
