#include "triton/response/stream_history.h"

#include <memory>
#include <vector>

#include "check.h"

using namespace inflight;
using triton::StreamHistory;

namespace {

Response with_log_prob(float value) {
  Response response;
  response.log_probs = {value};
  return response;
}

}  // namespace

TEST(a_response_has_all_log_probs_of_its_sequence_so_far) {
  StreamHistory history;
  CHECK(history.add_to(with_log_prob(-1), 0).log_probs == std::vector<float>{-1});
  CHECK(history.add_to(with_log_prob(-5), 1).log_probs == std::vector<float>{-5});
  CHECK(history.add_to(with_log_prob(-2), 0).log_probs == (std::vector<float>{-1, -2}));
  CHECK(history.add_to({}, 0).log_probs == (std::vector<float>{-1, -2}));
}

TEST(context_logits_are_repeated_up_to_a_limit_and_in_the_last_response) {
  StreamHistory history;
  const auto logits = std::make_shared<const std::vector<float>>(StreamHistory::kMaxRepeatedLogits / 3);
  Response response;
  response.context_logits = logits;
  CHECK(history.add_to(response, 0).context_logits == logits);
  for (int i = 0; i < 3; ++i) CHECK(history.add_to({}, 0).context_logits == logits);
  for (int i = 0; i < 3; ++i) CHECK(history.add_to({}, 0).context_logits == nullptr);
  Response last;
  last.is_sequence_final = true;  // though not of the request
  CHECK(history.add_to(last, 0).context_logits == logits);
}

TEST_MAIN()
