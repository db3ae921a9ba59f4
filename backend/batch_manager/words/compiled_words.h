#pragma once

#include "batch_manager/words/stop_words.h"
#include "engine/bad_words.h"

namespace inflight {

// A request's words, ready to be looked up. Its sequences share them.
struct CompiledWords {
  StopWords stop_words;
  BadWords bad_words;
};

}  // namespace inflight
