#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/engine.h"

namespace inflight::python {

struct TeacherForcingOptions {
  std::optional<int32_t> chunk_size;       // of one sequence in one step; all that fit unless set
  std::optional<int32_t> tokens_per_step;  // over all sequences; max_num_tokens unless set
};

// The logits that `engine` gives at every position of `sequences`, each [tokens, vocab_size]: ragged steps
// over as many sequences as fit at once, with a block assignment of its own.
// Throws Error (kInvalidArgument) for a sequence that the engine cannot hold.
std::vector<std::vector<float>> teacher_forced_logits(Engine& engine,
                                                      const std::vector<std::vector<int32_t>>& sequences,
                                                      const TeacherForcingOptions& options);

}  // namespace inflight::python
