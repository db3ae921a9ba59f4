#pragma once

#include <string_view>

namespace inflight::triton {

// Logs that an input tensor or a request parameter, as `what` says, has no effect: once for each of the first 100
// names.
void log_once_unknown(std::string_view what, std::string_view name);

// A request parameter that the backend does not know; a field of a generate request that is no input of its model
// arrives as one. Throws kInvalidArgument where it looks like a misspelled input or parameter, naming that one: it
// would be ignored silently. Any other is ignored, since clients send what concerns other models, and logged once.
void refuse_near_miss(std::string_view name);

}  // namespace inflight::triton
