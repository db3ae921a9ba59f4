#pragma once

#include <cstddef>

namespace inflight {

// How many messages lossless_send.cc keeps for one socket; beyond, send() fails as it does without that library. Each
// is a response that is ready for a client, behind a thread that reads none.
inline constexpr size_t kMaxKeptMessages = size_t{1} << 18;

}  // namespace inflight
