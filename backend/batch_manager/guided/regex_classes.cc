#include "batch_manager/guided/regex_classes.h"

namespace inflight {
namespace {

const CodePoints& ascii_digits() {
  static const CodePoints digits = {{'0', '9'}};
  return digits;
}

// Decimal digits (general category Nd) of Unicode 16 up to U+FFFF: ranges of ten from each of these. Beyond, all of the
// blocks that have letters count as digits.
const CodePoints& unicode_digits() {
  static const CodePoints digits = [] {
    CodePoints all = {{'0', '9'}, {0x10000, 0x1efff}, {0x1fb00, 0x1fbff}};
    for (const int32_t zero :
         {0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66,
          0x0de6, 0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
          0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10}) {
      all = all | CodePoints{{zero, zero + 9}};
    }
    return all;
  }();
  return digits;
}

const CodePoints& ascii_words() {
  static const CodePoints words = {{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {'_', '_'}};
  return words;
}

// Beyond ASCII, all but signs that are no part of a word in any dialect: punctuation, currencies, arrows, mathematics,
// box drawing, dingbats, pictographs.
const CodePoints& unicode_words() {
  static const CodePoints words =
      ascii_words() |
      (CodePoints{{0x80, 0x10ffff}} &
       ~CodePoints{{0xa1, 0xa9},      {0xab, 0xac},     {0xae, 0xb1},     {0xb4, 0xb4},       {0xb6, 0xb6},
                   {0xb8, 0xb8},      {0xbb, 0xbb},     {0xbf, 0xbf},     {0xd7, 0xd7},       {0xf7, 0xf7},
                   {0x2010, 0x2027},  {0x2030, 0x203e}, {0x2041, 0x2053}, {0x2055, 0x205e},   {0x20a0, 0x20c0},
                   {0x2190, 0x23ff},  {0x2500, 0x2775}, {0x3001, 0x3003}, {0x1f300, 0x1f64f}, {0x1f680, 0x1f6c5},
                   {0x1f900, 0x1f9ff}});
  return words;
}

const CodePoints& ascii_spaces() {
  static const CodePoints spaces = {{'\t', '\r'}, {' ', ' '}};
  return spaces;
}

const CodePoints& unicode_spaces() {
  static const CodePoints spaces =
      ascii_spaces() | CodePoints{{0x1c, 0x1f},     {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680},
                                  {0x180e, 0x180e}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
                                  {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
  return spaces;
}

}  // namespace

std::optional<MatchedCharacters> class_escape(int32_t letter) {
  switch (letter) {
    case 'd': return MatchedCharacters{ascii_digits(), unicode_digits()};
    case 'D': return ~MatchedCharacters{ascii_digits(), unicode_digits()};
    case 'w': return MatchedCharacters{ascii_words(), unicode_words()};
    case 'W': return ~MatchedCharacters{ascii_words(), unicode_words()};
    case 's': return MatchedCharacters{ascii_spaces(), unicode_spaces()};
    case 'S': return ~MatchedCharacters{ascii_spaces(), unicode_spaces()};
    default: return std::nullopt;
  }
}

// ECMAScript alone has two more line ends, U+2028 and U+2029, which would cost more than they are worth.
MatchedCharacters any_character() { return {~CodePoints{{'\n', '\n'}, {'\r', '\r'}}, CodePoints::all()}; }

}  // namespace inflight
