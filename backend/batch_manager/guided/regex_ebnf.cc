#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "batch_manager/guided/ebnf_text.h"
#include "batch_manager/guided/regex.h"
#include "common/error.h"

namespace inflight {
namespace {

using Kind = Regex::Kind;

// Characters that JSON escapes with a letter of their own.
constexpr struct {
  char character, letter;
} kShortEscapes[] = {{'"', '"'}, {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}};

const CodePoints& escaped_in_json() {
  static const CodePoints characters = {{1, 0x1f}, {'"', '"'}, {'\\', '\\'}};
  return characters;
}

bool is_single(const Regex& regex) {
  const auto& ranges = regex.characters.ranges();
  return regex.kind == Kind::kCharacter && ranges.size() == 1 && ranges[0].first == ranges[0].last;
}

// In the text of a JSON string.
std::string json_escape(int32_t character) {
  if (!escaped_in_json().contains(character)) return to_utf8(character);
  for (const auto& escape : kShortEscapes) {
    if (escape.character == character) return {'\\', escape.letter};
  }
  char text[7];
  std::snprintf(text, sizeof text, "\\u%04x", static_cast<unsigned>(character));
  return text;
}

// The text of a class, with escapes as `escape` writes them. Where all characters beyond ASCII are in it, it says which
// are not: the automaton of their bytes is smaller. That has surrogates, too, which tokens never spell
// (GuidedVocabulary).
template <class Escape>
std::string class_text(const CodePoints& characters, const Escape& escape) {
  static const CodePoints beyond_ascii = CodePoints{{0x80, 0x10ffff}} & CodePoints::all();
  const bool has_all = (beyond_ascii & ~characters).empty();
  std::string result = has_all ? "[^" + escape(0) : "[";
  const CodePoints said = has_all ? ~characters : characters;
  for (const CodePointRange& range : said.ranges()) {
    result += escape(range.first);
    if (range.last > range.first) result += "-" + escape(range.last);
  }
  return result + "]";
}

std::string escaped(int32_t character) {
  char text[11];
  std::snprintf(text, sizeof text, "\\u{%x}", static_cast<unsigned>(character));
  return text;
}

std::string repetition(int32_t min, int32_t max) {
  return "{" + std::to_string(min) + "," + (max == Regex::kNoLimit ? "" : std::to_string(max)) + "}";
}

// What stands for one of the characters in a JSON string: itself, or one of these after a text.
struct JsonSpelling {
  std::string before;
  CodePoints characters;
};

std::vector<JsonSpelling> json_spellings(const CodePoints& characters) {
  std::vector<JsonSpelling> spellings = {{"", characters & ~escaped_in_json()}};
  CodePoints rest = characters & escaped_in_json();
  JsonSpelling letters{"\\", {}};
  for (const auto& escape : kShortEscapes) {
    if (!rest.contains(escape.character)) continue;
    letters.characters = letters.characters | CodePoints{{escape.letter, escape.letter}};
    rest = rest & ~CodePoints{{escape.character, escape.character}};
  }
  spellings.push_back(std::move(letters));
  for (const int32_t high : {0, 1}) {  // of two hexadecimal digits
    JsonSpelling digits{"\\u00" + std::to_string(high), {}};
    for (int32_t low = 0; low < 16; ++low) {
      const int32_t digit = "0123456789abcdef"[low];
      if (rest.contains(high * 16 + low)) digits.characters = digits.characters | CodePoints{{digit, digit}};
    }
    spellings.push_back(std::move(digits));
  }
  std::erase_if(spellings, [](const JsonSpelling& spelling) { return spelling.characters.empty(); });
  return spellings;
}

// As a regular expression of xgrammar, of which it makes one automaton. The rules of a grammar would be followed in all
// the ways that a text can be split among repetitions, which takes for ever as the text grows.
class AutomatonWriter {
 public:
  explicit AutomatonWriter(bool json_string) : json_string_(json_string) {}

  std::string write(const Regex& regex) const {
    switch (regex.kind) {
      case Kind::kBegin:
      case Kind::kEnd: return "";
      case Kind::kCharacter: return one_of(regex.characters);
      case Kind::kSequence: return joined(regex.children, "");
      case Kind::kAlternatives: return "(" + joined(regex.children, "|") + ")";
      case Kind::kRepeat: return regex.max == 0 ? "" : repeat(regex);
    }
    return "";
  }

 private:
  std::string repeat(const Regex& regex) const {
    const Regex& child = regex.children[0];
    const std::string once = child.kind == Kind::kCharacter ? write(child) : "(" + write(child) + ")";
    // Neither ? nor {n,}, which xgrammar gets wrong where what is repeated can end in several places.
    if (regex.max != Regex::kNoLimit) return once + repetition(regex.min, regex.max);
    if (regex.min <= 1) return once + (regex.min == 0 ? "*" : "+");
    return once + repetition(regex.min, regex.min) + once + "*";
  }

  std::string joined(const std::vector<Regex>& children, const char* separator) const {
    std::string result;
    for (const Regex& child : children) {
      if (&child != &children.front()) result += separator;
      result += write(child);
    }
    return result;
  }

  std::string one_of(const CodePoints& characters) const {
    if (!json_string_) return character_class(characters);
    const auto spellings = json_spellings(characters);
    std::string result;
    for (const auto& [before, after] : spellings) {
      if (!result.empty()) result += "|";
      for (const char character : before) result += escaped(character);
      result += character_class(after);
    }
    return spellings.size() == 1 && spellings[0].before.empty() ? result : "(" + result + ")";
  }

  static std::string character_class(const CodePoints& characters) { return class_text(characters, escaped); }

  const bool json_string_;
};

constexpr int64_t kMaxAutomaton = 1000;  // characters, once its repetitions are written out
constexpr int32_t kMaxWrittenOut = 128;  // xgrammar makes grammars of more repetitions

int64_t automaton_size(const Regex& regex) {
  int64_t size = regex.kind == Kind::kCharacter ? 1 : 0;
  for (const Regex& child : regex.children) size += automaton_size(child);
  if (regex.kind == Kind::kRepeat) {
    const int32_t count = std::max(regex.min, regex.max);
    size = count > kMaxWrittenOut ? 2 * kMaxAutomaton : size * std::max(count, 1);
  }
  return std::min(size, 2 * kMaxAutomaton);
}

bool repeats(const Regex& regex) {
  return (regex.kind == Kind::kRepeat && regex.max != 0) || std::ranges::any_of(regex.children, repeats);
}

class EbnfWriter {
 public:
  explicit EbnfWriter(bool json_string) : json_string_(json_string) {}

  std::string write(const Regex& regex) const {
    if (repeats(regex) && automaton_size(regex) <= kMaxAutomaton) {
      return "Regex(" + ebnf_literal(AutomatonWriter(json_string_).write(regex)) + ")";
    }
    switch (regex.kind) {
      case Kind::kBegin:
      case Kind::kEnd: return "\"\"";
      case Kind::kCharacter: return is_single(regex) ? ebnf_literal(text(regex)) : one_of(regex.characters);
      case Kind::kSequence: return sequence(regex.children);
      case Kind::kAlternatives: return alternatives(regex.children);
      case Kind::kRepeat: return regex.max == 0 ? "\"\"" : repeat(regex);
    }
    return "";
  }

 private:
  // xgrammar is fast with long repetitions of one character class: escapes, which take two characters, are left out.
  std::string repeat(const Regex& regex) const {
    const Regex& child = regex.children[0];
    const CodePoints plain = child.characters & ~escaped_in_json();
    const bool is_class = child.kind == Kind::kCharacter && !plain.empty();
    return (is_class ? ebnf_class(json_string_ ? plain : child.characters) : "(" + write(child) + ")") +
           repetition(regex.min, regex.max);
  }

  std::string text(const Regex& single) const {
    const int32_t character = single.characters.ranges()[0].first;
    return json_string_ ? json_escape(character) : to_utf8(character);
  }

  std::string one_of(const CodePoints& characters) const {
    if (!json_string_) return ebnf_class(characters);
    std::string result = "(";
    for (const auto& [before, after] : json_spellings(characters)) {
      if (result.size() > 1) result += " | ";
      result += ebnf_literal(before) + " " + ebnf_class(after);
    }
    return result + ")";
  }

  // What stands for itself becomes one literal.
  std::string sequence(const std::vector<Regex>& children) const {
    std::string result, literal;
    const auto add = [&](const std::string& part) {
      if (!result.empty()) result += ' ';
      result += part;
    };
    for (const Regex& child : children) {
      if (is_single(child)) {
        literal += text(child);
        continue;
      }
      if (!literal.empty()) add(ebnf_literal(literal));
      literal.clear();
      add(write(child));
    }
    if (!literal.empty() || result.empty()) add(ebnf_literal(literal));
    return result;
  }

  std::string alternatives(const std::vector<Regex>& children) const {
    std::string result = "(";
    for (const Regex& child : children) {
      if (&child != &children.front()) result += " | ";
      result += write(child);
    }
    return result + ")";
  }

  const bool json_string_;
};

void check_characters(const Regex& regex) {
  if (regex.kind == Kind::kCharacter && regex.characters.empty()) {
    throw_error(ErrorCode::kInvalidArgument, "a character class has no characters");
  }
  for (const Regex& child : regex.children) check_characters(child);
}

int64_t times(int64_t length, int64_t count) {
  if (length == 0 || count == 0) return 0;
  return length == Regex::kNoLimit || count == Regex::kNoLimit ? Regex::kNoLimit : length * count;
}

}  // namespace

std::string ebnf_literal(std::string_view text) {
  std::string quoted = "\"";
  for (const char byte : text) {
    if (byte == 0) throw_error(ErrorCode::kInvalidArgument, "the guide holds the character U+0000");
    if ((0 < byte && byte < 0x20) || byte == 0x7f) {
      char escape[7];  // \x would take the digits that follow as well
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(byte));
      quoted += escape;
    } else {
      if (byte == '"' || byte == '\\') quoted += '\\';
      quoted += byte;
    }
  }
  return quoted + '"';
}

std::string ebnf_class(const CodePoints& characters) {
  const auto escape = [](int32_t character) {
    char text[11];
    std::snprintf(text, sizeof text, "\\U%08x", static_cast<unsigned>(character));
    return std::string(text);
  };
  return class_text(characters, escape);
}

std::string to_ebnf(const Regex& regex, bool json_string) {
  check_characters(regex);
  return EbnfWriter(json_string).write(regex);
}

TextLength text_length(const Regex& regex) {
  TextLength length{0, 0};
  switch (regex.kind) {
    case Kind::kBegin:
    case Kind::kEnd: return length;
    case Kind::kCharacter: return {1, 1};
    case Kind::kSequence:
      for (const Regex& child : regex.children) {
        const TextLength part = text_length(child);
        length.min += part.min;
        const bool is_limited = length.max != Regex::kNoLimit && part.max != Regex::kNoLimit;
        length.max = is_limited ? length.max + part.max : Regex::kNoLimit;
      }
      return length;
    case Kind::kAlternatives:
      length = text_length(regex.children[0]);
      for (const Regex& child : regex.children) {
        const TextLength part = text_length(child);
        length.min = std::min(length.min, part.min);
        const bool is_limited = length.max != Regex::kNoLimit && part.max != Regex::kNoLimit;
        length.max = is_limited ? std::max(length.max, part.max) : Regex::kNoLimit;
      }
      return length;
    case Kind::kRepeat: {
      const TextLength part = text_length(regex.children[0]);
      return {times(part.min, regex.min), times(part.max, regex.max)};
    }
  }
  return length;
}

}  // namespace inflight
