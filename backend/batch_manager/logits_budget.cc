#include "batch_manager/logits_budget.h"

namespace inflight {

int64_t logits_bytes(const Request& request, int32_t vocab_size) {
  int64_t rows = 0;
  if (request.return_context_logits) rows += static_cast<int64_t>(request.input_ids.size());
  if (request.return_generation_logits) rows += int64_t{request.max_new_tokens} * request.num_return_sequences;
  return rows * vocab_size * static_cast<int64_t>(sizeof(float));
}

std::shared_ptr<const void> LogitsBudget::reserve(int64_t bytes) {
  const auto give_back = [free = free_, bytes](const void*) { *free += bytes; };
  std::shared_ptr<const void> reservation(free_.get(), give_back);
  *free_ -= bytes;
  return reservation;
}

}  // namespace inflight
