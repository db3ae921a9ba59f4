#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "batch_manager/request.h"

namespace inflight::triton {

// What a request's responses have said so far of log-probs and context logits. Clients of TensorRT-LLM keep the last
// response of a stream and find both whole in it, and those of 0.8 to 0.13 look for the context logits in each. A
// client that reads slowly leaves every response in Triton's memory: so, once so many of a request's context logits
// have been repeated, only a sequence's last response has them again.
class StreamHistory {
 public:
  static constexpr size_t kMaxRepeatedLogits = 64 << 20;  // 256 MiB

  // The response with all of its sequence's log-probs up to here, and with the context logits. `batch_index`: the
  // sequence's prompt. Responses come in their order, one at a time.
  Response add_to(Response response, size_t batch_index);

 private:
  struct Said {
    std::vector<float> log_probs;
    std::shared_ptr<const std::vector<float>> context_logits;
  };
  std::map<std::pair<size_t, int32_t>, Said> said_;  // of (batch_index, sequence_index)
  size_t num_repeated_ = 0;  // context logits
};

}  // namespace inflight::triton
