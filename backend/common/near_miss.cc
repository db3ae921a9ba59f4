#include "common/near_miss.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace inflight {
namespace {

std::string letters_of(std::string_view name) {
  std::string letters;
  for (const unsigned char c : name) {
    if (c != '_' && c != '-') letters += static_cast<char>(std::tolower(c));
  }
  return letters;
}

size_t allowed_slips(std::string_view letters) { return letters.size() >= 8 ? 2 : letters.size() >= 4 ? 1 : 0; }

// The fewest letters left out or added, and neighbors exchanged, that make one of the other (optimal string alignment).
size_t num_slips(std::string_view a, std::string_view b) {
  std::vector<size_t> before_last, last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = a[i - 1] == b[j - 1] ? last[j - 1] : 1 + std::min(last[j], row[j - 1]);
      const bool exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (exchanged) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last = std::exchange(last, row);
  }
  return last[b.size()];
}

}  // namespace

std::string_view near_miss(std::string_view name, std::span<const std::string_view> known) {
  const std::string letters = letters_of(name);
  std::string_view nearest;
  size_t fewest = 3;
  for (const std::string_view candidate : known) {
    const std::string wanted = letters_of(candidate);
    const size_t allowed = allowed_slips(wanted);
    const size_t difference = std::max(letters.size(), wanted.size()) - std::min(letters.size(), wanted.size());
    if (difference > allowed) continue;
    const size_t slips = num_slips(letters, wanted);
    if (slips <= allowed && slips < fewest) {
      nearest = candidate;
      fewest = slips;
    }
  }
  return nearest;
}

}  // namespace inflight
