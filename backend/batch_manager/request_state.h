#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "batch_manager/delivery.h"
#include "batch_manager/guided/guided_decoder.h"
#include "batch_manager/prompt_lookup.h"
#include "batch_manager/request.h"
#include "batch_manager/words/requested_words.h"

namespace inflight {

struct Sequence;

// What the sequences of one request share. Touched by the loop thread only, once it has been submitted.
struct RequestState {
  using Clock = std::chrono::steady_clock;

  RequestState(RequestId id, Request request, double rank, std::shared_ptr<ResponseReceiver> receiver = nullptr);

  int32_t num_sequences() const { return request.num_sequences(); }
  int32_t num_waiting() const { return num_sequences() - num_made; }
  // One request's sequences are scheduled as if they were requests one after another, so that many of them do not hold
  // up those of others.
  double rank_of_next() const { return rank + num_made; }
  bool is_ended() const { return error.has_value() || is_cancelled; }

  const RequestId id;
  const Request request;
  const double rank;  // of its first sequence; smaller is scheduled first
  const std::shared_ptr<ResponseReceiver> receiver;
  const Clock::time_point submitted = Clock::now();

  std::shared_ptr<const RequestedGuide> guide;  // null: the text is free
  std::shared_ptr<const RequestedWords> words = std::make_shared<RequestedWords>();
  // Its next step needs the tokens of the one before: for a mask, a choice of beams, or drafts.
  bool needs_tokens = false;
  std::shared_ptr<const void> logits_memory;  // its share of the budget, from its first start on
  std::shared_ptr<const std::vector<float>> context_logits;  // [prompt, vocab_size], once a sequence has computed it
  std::optional<PromptLookup> prompt_lookup;                 // of the prompt, once a sequence has needed it

  int32_t num_made = 0;        // sequences that exist, or have existed: each is made when it may start
  std::optional<Error> error;  // ends all sequences
  bool is_cancelled = false;   // likewise
  int32_t num_unfinished;      // sequences
  const Sequence* computing_prompt = nullptr;  // of several sequences: the running one that the others wait for
  const Sequence* computed_prompt = nullptr;  // of several sequences: a running one whose blocks hold the whole prompt

  std::optional<Clock::time_point> first_step;
  std::optional<Clock::time_point> first_token;
  Clock::time_point last_token;
  int32_t num_generated = 0;
};

}  // namespace inflight
