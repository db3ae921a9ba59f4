#pragma once

#include <cstdint>

#include "engine/bad_words.h"
#include "engine/word_automaton.h"

namespace inflight {

// A request's words, ready to be looked up. Its sequences share them.
struct CompiledWords {
  WordAutomaton stop_words;
  BadWords bad_words;
};

}  // namespace inflight
