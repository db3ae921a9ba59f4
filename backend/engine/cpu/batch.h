#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace inflight::cpu {

// One slot's slice of the step, with what its slot knows.
struct BatchSlice {
  int32_t slot;
  int32_t first_token = 0;  // its tokens are the batch's [first_token, first_token + num_tokens)
  int32_t num_tokens;
  int32_t past_length;   // tokens before them, in the cache
  int32_t prompt_length;
  std::span<const int32_t> block_ids;
  bool samples;
  int32_t num_drafts;  // its last tokens are drafts
  ReturnedLogits returned_logits;
  std::span<const uint32_t> mask;  // empty: all tokens may be sampled

  int32_t end_token() const { return first_token + num_tokens; }
};

struct BatchToken {
  int32_t id;
  int32_t position;  // in its sequence
  int32_t slice;     // index in Batch::slices
};

// The tokens of a ragged batch.
struct Batch {
  std::vector<BatchToken> tokens;
  std::vector<BatchSlice> slices;
};

}  // namespace inflight::cpu
