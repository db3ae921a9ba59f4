#include "batch_manager/request_state.h"

#include <utility>

namespace inflight {

RequestState::RequestState(RequestId id, Request request_in, double rank, std::shared_ptr<ResponseReceiver> receiver)
    : id(id),
      request(std::move(request_in)),
      rank(rank),
      receiver(std::move(receiver)),
      num_unfinished(num_sequences()) {}

}  // namespace inflight
