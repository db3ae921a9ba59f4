#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "batch_manager/guided/regex.h"
#include "batch_manager/guided/regex_classes.h"
#include "common/error.h"

namespace inflight {
namespace {

using Kind = Regex::Kind;

constexpr int kMaxDepth = 100;  // of groups

bool is_digit(int32_t character) { return '0' <= character && character <= '9'; }

bool is_letter(int32_t character) {
  return ('a' <= character && character <= 'z') || ('A' <= character && character <= 'Z');
}

Regex one_of(CodePoints characters) { return {Kind::kCharacter, std::move(characters)}; }

class RegexParser {
 public:
  RegexParser(std::string_view text, Dialect dialect) : text_(code_points_of(text)), dialect_(dialect) {
    std::string utf8;
    for (const int32_t character : text_) utf8 += to_utf8(character);
    if (utf8 != text) throw_error(ErrorCode::kInvalidArgument, "the expression is not UTF-8");
  }

  Regex parse() {
    Regex regex = alternatives(0);
    if (!at_end()) fail("')' closes no group");
    check_anchors(regex, true, true);
    return regex;
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(const Args&... args) const {
    throw_error(ErrorCode::kInvalidArgument, "at character ", position_ + 1, ": ", args...);
  }

  bool at_end() const { return position_ == text_.size(); }
  int32_t peek(size_t ahead = 0) const { return position_ + ahead < text_.size() ? text_[position_ + ahead] : -1; }
  int32_t next() {
    if (at_end()) fail("the expression ends too early");
    return text_[position_++];
  }
  bool take(int32_t character) {
    if (peek() != character) return false;
    ++position_;
    return true;
  }

  Regex alternatives(int depth) {
    Regex result{Kind::kAlternatives};
    do {
      result.children.push_back(sequence(depth));
    } while (take('|'));
    if (result.children.size() == 1) return std::move(result.children.front());
    if (!std::ranges::all_of(result.children, [](const Regex& child) { return child.kind == Kind::kCharacter; })) {
      return result;
    }
    CodePoints characters;
    for (const Regex& child : result.children) characters = characters | child.characters;
    return one_of(std::move(characters));
  }

  Regex sequence(int depth) {
    Regex result;
    while (!at_end() && peek() != '|' && peek() != ')') result.children.push_back(quantified(depth));
    if (result.children.size() == 1) return std::move(result.children.front());
    return result;
  }

  Regex quantified(int depth) {
    Regex regex = atom(depth);
    Regex repeat{Kind::kRepeat};
    if (take('*')) {
      repeat.min = 0;
    } else if (take('+')) {
      repeat.min = 1;
    } else if (take('?')) {
      repeat.max = 1;
    } else if (take('{')) {
      repeat.min = count();
      repeat.max = repeat.min;
      if (take(',')) repeat.max = peek() == '}' ? Regex::kNoLimit : count();
      if (!take('}')) fail("'}' is missing");
      if (repeat.max != Regex::kNoLimit && repeat.max < repeat.min)
        fail("the lower bound is larger than the upper one");
    } else {
      return regex;
    }
    if (regex.kind == Kind::kBegin || regex.kind == Kind::kEnd) fail("'^' and '$' cannot be repeated");
    take('?');  // lazy: which repetition comes first does not matter to a whole text
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') fail("a repetition cannot be repeated");
    repeat.children.push_back(std::move(regex));
    return repeat;
  }

  int32_t count() {
    if (!is_digit(peek())) fail("a number must follow '{'; a brace that stands for itself is \\{");
    int64_t value = 0;
    while (is_digit(peek())) {
      value = value * 10 + (next() - '0');
      if (value > std::numeric_limits<int32_t>::max()) fail("the number of repetitions is too large");
    }
    return static_cast<int32_t>(value);
  }

  Regex atom(int depth) {
    const int32_t character = next();
    switch (character) {
      case '^': return {Kind::kBegin};
      case '$': return {Kind::kEnd};
      case '.': return one_of(choose(any_character()));
      case '(': return group(depth);
      case '[': return one_of(character_class());
      case '*':
      case '+':
      case '?':
      case '{':
        --position_;
        fail("there is nothing to repeat; a '", to_utf8(character), "' that stands for itself is \\",
             to_utf8(character));
      case '\\':
        if (const auto characters = class_escape(peek())) {
          ++position_;
          return one_of(choose(*characters));
        }
        return one_of(single(escaped()));
      default: return one_of(single(character));
    }
  }

  const CodePoints& choose(const MatchedCharacters& characters) const {
    return dialect_ == Dialect::kAll ? characters.certain : characters.possible;
  }

  Regex group(int depth) {
    if (depth == kMaxDepth) fail("groups are nested deeper than ", kMaxDepth);
    if (take('?')) group_kind();
    Regex regex = alternatives(depth + 1);
    if (!take(')')) fail("a group is not closed");
    return regex;
  }

  // (?:…), (?<name>…), (?P<name>…)
  void group_kind() {
    if (take(':')) return;
    if (peek() == '=' || peek() == '!') fail("lookahead is not supported");
    if (peek() == '<' && (peek(1) == '=' || peek(1) == '!')) fail("lookbehind is not supported");
    take('P');
    if (!take('<')) fail("groups with flags, conditions and references are not supported");
    while (is_letter(peek()) || is_digit(peek()) || peek() == '_') ++position_;
    if (!take('>')) fail("the group's name must be letters, digits and '_', and end with '>'");
  }

  CodePoints character_class() {
    const bool is_negated = take('^');
    if (peek() == ']') fail("']' cannot be the first character of a class; one that stands for itself is \\]");
    MatchedCharacters characters;
    while (!take(']')) {
      if (at_end()) fail("a character class is not closed");
      characters = characters | class_item();
    }
    if (is_negated) characters = ~characters;
    return choose(characters);
  }

  MatchedCharacters class_item() {
    int32_t first = next();
    if (first == '\\') {
      if (const auto characters = class_escape(peek())) {
        ++position_;
        return *characters;
      }
      first = escaped();
    }
    if (peek() != '-' || peek(1) == ']' || peek(1) == -1) return {single(first), single(first)};
    ++position_;
    int32_t last = next();
    if (last == '\\') {
      if (class_escape(peek())) fail("a class cannot end a range");
      last = escaped();
    }
    if (last < first) fail("the range's lower bound is larger than its upper one");
    const CodePoints range = CodePoints{{first, last}} & CodePoints::all();
    return {range, range};
  }

  static CodePoints single(int32_t character) { return CodePoints{{character, character}}; }

  // What follows a backslash and stands for one character.
  int32_t escaped() {
    const int32_t character = next();
    switch (character) {
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'f': return '\f';
      case 'v': return '\v';
      case 'x': return hexadecimal(2);
      case 'u': return unicode_escape();
      case 'b':
      case 'B': fail("word boundaries are not supported");
      case 'p':
      case 'P': fail("Unicode properties are not supported");
      case 'k': fail("references to groups are not supported");
      default: break;
    }
    if (is_digit(character)) fail("references to groups and octal escapes are not supported");
    if (is_letter(character)) fail("\\", to_utf8(character), " is not supported");
    return character;
  }

  int32_t unicode_escape() {
    int32_t character = 0;
    if (take('{')) {
      character = hexadecimal(1);
      while (peek() != '}') character = character * 16 + hexadecimal(1);
      ++position_;
    } else {
      character = hexadecimal(4);
      if ((character & 0xfc00) == 0xd800 && peek() == '\\' && peek(1) == 'u') {
        position_ += 2;
        character = 0x10000 + ((character & 0x3ff) << 10) + (hexadecimal(4) & 0x3ff);
      }
    }
    if (!CodePoints::all().contains(character)) fail("the escape stands for no character");
    return character;
  }

  int32_t hexadecimal(int digits) {
    int32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const int32_t digit = next();
      const int32_t lower = digit | 0x20;
      if (!is_digit(digit) && (lower < 'a' || lower > 'f')) fail("a hexadecimal digit must be here");
      value = value * 16 + (is_digit(digit) ? digit - '0' : lower - 'a' + 10);
      if (value > 0x10ffff) fail("the escape stands for no character");
    }
    return value;
  }

  // ^ is true of every whole text if nothing comes before it, and $ if nothing comes after it.
  static void check_anchors(const Regex& regex, bool begins, bool ends) {
    switch (regex.kind) {
      case Kind::kBegin:
        if (!begins) throw_error(ErrorCode::kInvalidArgument, "'^' is supported where the expression begins only");
        return;
      case Kind::kEnd:
        if (!ends) throw_error(ErrorCode::kInvalidArgument, "'$' is supported where the expression ends only");
        return;
      case Kind::kAlternatives:
        for (const Regex& child : regex.children) check_anchors(child, begins, ends);
        return;
      case Kind::kRepeat: return check_anchors(regex.children[0], begins && regex.max == 1, ends && regex.max == 1);
      case Kind::kSequence: return check_anchors_of_sequence(regex.children, begins, ends);
      case Kind::kCharacter: return;
    }
  }

  static void check_anchors_of_sequence(const std::vector<Regex>& children, bool begins, bool ends) {
    const auto has_width = [](const Regex& child) { return child.kind != Kind::kBegin && child.kind != Kind::kEnd; };
    const auto first = std::ranges::find_if(children, has_width) - children.begin();
    const auto last =
        std::ssize(children) - 1 - (std::find_if(children.rbegin(), children.rend(), has_width) - children.rbegin());
    for (std::ptrdiff_t i = 0; i < std::ssize(children); ++i) {
      check_anchors(children[i], begins && i <= first, ends && i >= last);
    }
  }

  const std::vector<int32_t> text_;
  const Dialect dialect_;
  size_t position_ = 0;
};

}  // namespace

Regex parse_regex(std::string_view text, Dialect dialect) { return RegexParser(text, dialect).parse(); }

Regex literal_regex(std::string_view text) {
  Regex regex;
  for (const int32_t character : code_points_of(text)) {
    regex.children.push_back(one_of(CodePoints{{character, character}}));
  }
  return regex;
}

std::string to_utf8(int32_t code_point) {
  const auto byte = [](int32_t value) { return static_cast<char>(value); };
  const auto rest = [&](int shift) { return byte(0x80 | (code_point >> shift & 0x3f)); };
  if (code_point < 0x80) return {byte(code_point)};
  if (code_point < 0x800) return {byte(0xc0 | code_point >> 6), rest(0)};
  if (code_point < 0x10000) return {byte(0xe0 | code_point >> 12), rest(6), rest(0)};
  return {byte(0xf0 | code_point >> 18), rest(12), rest(6), rest(0)};
}

std::vector<int32_t> code_points_of(std::string_view text) {
  std::vector<int32_t> result;
  result.reserve(text.size());
  for (const char byte : text) {
    const auto bits = static_cast<unsigned char>(byte);
    if (bits < 0x80) {
      result.push_back(bits);
    } else if (bits >= 0xc0) {
      result.push_back(bits & (bits < 0xe0 ? 0x1f : bits < 0xf0 ? 0x0f : 0x07));
    } else if (!result.empty()) {
      result.back() = (result.back() & 0x7fff) << 6 | (bits & 0x3f);
    }
  }
  return result;
}

}  // namespace inflight
