#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace inflight::cpu {

// One sequence's rows of a ragged batch.
struct BatchSequence {
  int32_t slot;
  int32_t first_row = 0;  // its tokens are rows [first_row, first_row + num_tokens)
  int32_t num_tokens;
  int32_t past_length;   // tokens before them, in the cache
  int32_t prompt_length;
  std::span<const int32_t> block_ids;
  bool samples;
  int32_t num_drafts;  // its last rows are drafts
  ReturnedLogits returned_logits;
  std::span<const uint32_t> mask;  // empty: all tokens may be sampled

  int32_t end_row() const { return first_row + num_tokens; }
};

struct BatchRow {
  int32_t token;     // id
  int32_t position;  // in its sequence
  int32_t sequence;  // index in Batch::sequences
};

struct Batch {
  std::vector<BatchRow> rows;
  std::vector<BatchSequence> sequences;
};

}  // namespace inflight::cpu
