#include "batch_manager/words/text_decoder.h"

namespace inflight {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

}  // namespace

bool is_utf8(std::string_view text) {
  TextDecoder decoder;
  std::string decoded;
  decoder.push(text, decoded);
  decoder.finish(decoded);
  return decoded == text;
}

void TextDecoder::push(std::string_view bytes, std::string& text) {
  for (const char byte : bytes) push(static_cast<unsigned char>(byte), text);
}

void TextDecoder::finish(std::string& text) {
  if (num_pending_ > 0) text += kReplacement;
  num_pending_ = num_missing_ = 0;
}

// RFC 3629, section 4.
void TextDecoder::push(unsigned char byte, std::string& text) {
  if (num_missing_ > 0) {
    if (least_ <= byte && byte <= most_) {
      pending_[num_pending_++] = static_cast<char>(byte);
      least_ = 0x80, most_ = 0xbf;
      if (--num_missing_ == 0) {
        text.append(pending_, num_pending_);
        num_pending_ = 0;
      }
      return;
    }
    finish(text);
  }
  if (byte < 0x80) {
    text += static_cast<char>(byte);
  } else if (byte < 0xc2 || byte > 0xf4) {
    text += kReplacement;
  } else {
    pending_[0] = static_cast<char>(byte);
    num_pending_ = 1;
    num_missing_ = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    least_ = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
    most_ = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
  }
}

}  // namespace inflight
