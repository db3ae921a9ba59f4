#include "batch_manager/guided/json_schema_grammar.h"

#include <grammar_functor.h>        // of xgrammar's sources
#include <json_schema_converter.h>  // of xgrammar's sources

#include <algorithm>
#include <map>
#include <vector>

#include "batch_manager/guided/json_schema_reader.h"
#include "batch_manager/guided/regex.h"
#include "common/error.h"

namespace inflight {
namespace {

constexpr int kMaxReferences = 200;  // each inside of the last one: they are followed by recursion

// xgrammar's, with strings that are right: patterns are escaped for JSON, lengths count characters, no escape stands
// for half of a surrogate pair, and no further property has the name of a listed one, however it is spelled.
class Converter final : public xgrammar::JSONSchemaConverter {
 public:
  Converter(const JsonSchemaReader& reader, int max_whitespace)
      : JSONSchemaConverter(
            std::nullopt, std::nullopt, /*any_whitespace=*/true, max_whitespace,
            [&reader](const std::string& uri, const std::string&) { return reader.read_referenced(uri); }) {}

 private:
  using Elements = std::vector<CharacterClassElement>;

  void AddBasicRules() override {
    JSONSchemaConverter::AddBasicRules();
    builder_.UpdateRuleBody(kBasicEscape, Choice({short_escape(), character_escape()}));
  }

  int32_t GenerateRef(const xgrammar::RefSpec& spec, const std::string& rule_name) override {
    if (num_references_ == kMaxReferences) {
      throw_error(ErrorCode::kInvalidArgument, "more than ", kMaxReferences, " references are nested");
    }
    ++num_references_;
    const int32_t rule = JSONSchemaConverter::GenerateRef(spec, rule_name);
    --num_references_;
    return rule;
  }

  int32_t GenerateString(const xgrammar::StringSpec& spec, const std::string& rule_name) override {
    if (spec.pattern) {
      const auto body = xgrammar::Grammar::FromEBNF("root ::= " + *spec.pattern);
      return Sequence({ByteString("\""), AddSubGrammar(body), ByteString("\"")});
    }
    if (spec.min_length == 0 && spec.max_length < 0) return JSONSchemaConverter::GenerateString(spec, rule_name);
    // Without escapes, whose second character would not count: xgrammar is fast with repetitions of one class.
    const int32_t body = Repeat(rule_name + "_characters", plain_character({}), spec.min_length, spec.max_length);
    return Sequence({ByteString("\""), body, ByteString("\"")});
  }

  // A string that is none of the names. While it may become one of them, nothing is escaped.
  int32_t GetKeyPatternExcluding(const std::vector<xgrammar::ObjectSpec::Property>& properties,
                                 const std::string& rule_name) override {
    if (properties.empty()) return KeyPatternExpression();
    NameTree names;
    for (const auto& property : properties) {
      NameTree* node = &names;
      for (const int32_t character : code_points_of(property.name)) node = &node->children[character];
      node->is_name = true;
    }
    const int32_t rule = builder_.AddEmptyRuleWithHint(rule_name + "_other_name");
    builder_.UpdateRuleBody(rule, Sequence({ByteString("\""), other_name(names)}));
    return RuleRef(rule);
  }

  struct NameTree {
    bool is_name = false;
    std::map<int32_t, NameTree> children;
  };

  int32_t other_name(const NameTree& names) {
    std::vector<int32_t> choices;
    if (!names.is_name) choices.push_back(ByteString("\""));
    Elements taken;
    for (const auto& [character, child] : names.children) {
      taken.push_back({character, character});
      const Elements escaped = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}};
      if (std::ranges::any_of(escaped, [&](const auto& e) { return e.lower <= character && character <= e.upper; }))
        continue;
      choices.push_back(Sequence({ByteString(to_utf8(character)), other_name(child)}));
    }
    choices.push_back(Sequence({plain_character(taken), RuleRef(kBasicStringSub)}));
    return Choice(choices);
  }

  int32_t plain_character(Elements excluded) {
    for (const auto& element : Elements{{0, 0x1f}, {'"', '"'}, {'\\', '\\'}}) excluded.push_back(element);
    return builder_.AddCharacterClass(excluded, /*is_negative=*/true);
  }

  int32_t one_of(const char* characters) {
    Elements elements;
    for (; *characters != 0; ++characters) elements.push_back({*characters, *characters});
    return builder_.AddCharacterClass(elements);
  }

  // What follows a backslash.
  int32_t short_escape() { return one_of("\"\\/bfnrt"); }

  int32_t character_escape() {
    const int32_t digit = one_of("0123456789abcdefABCDEF");
    return Choice({Sequence({ByteString("u"), one_of("0123456789abcefABCEF"), digit, digit, digit}),
                   Sequence({ByteString("u"), one_of("dD"), one_of("01234567"), digit, digit})});
  }

  int num_references_ = 0;
};

xgrammar::Grammar grammar_of(const SchemaJson& schema, int max_whitespace) {
  const JsonSchemaReader reader(schema);
  return xgrammar::GrammarNormalizer::Apply(Converter(reader, max_whitespace).Convert(reader.read()));
}

}  // namespace

xgrammar::Grammar json_schema_grammar(const std::string& schema, int max_whitespace) {
  const SchemaJson json = SchemaJson::parse(schema);
  if (!json.is_object()) throw_error(ErrorCode::kInvalidArgument, "the guide must be a JSON object");
  return grammar_of(json, max_whitespace);
}

xgrammar::Grammar json_object_grammar(int max_whitespace) { return grammar_of({{"type", "object"}}, max_whitespace); }

}  // namespace inflight
