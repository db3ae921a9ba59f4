#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace inflight {

// UTF-8 that comes in pieces: whole characters pass, and bytes that are part of none become U+FFFD, one for each run
// that could have begun a character, as in Python's errors="replace". A copy goes on where the original stands.
class TextDecoder {
 public:
  // Appends to `text` what is complete with these bytes.
  void push(std::string_view bytes, std::string& text);
  // No byte follows: what is left of a character becomes U+FFFD.
  void finish(std::string& text);

 private:
  void push(unsigned char byte, std::string& text);

  char pending_[4] = {};     // the beginning of a character
  int8_t num_pending_ = 0;
  int8_t num_missing_ = 0;   // bytes of that character
  unsigned char least_ = 0x80, most_ = 0xbf;  // of its next byte
};

bool is_utf8(std::string_view text);

}  // namespace inflight
