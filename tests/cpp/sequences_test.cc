// Requests of more than one continuation, and steps of more than one token: num_return_sequences, beams, drafts.

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <map>
#include <mutex>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "check.h"
#include "collector.h"
#include "common/logging.h"
#include "paged_engine.h"

using namespace inflight;
using namespace inflight::test;
using namespace std::chrono_literals;

namespace {

// The responses of a request with several sequences.
class SequenceCollector {
 public:
  ResponseCallback callback() {
    return [this](RequestId, const Response& response) {
      std::lock_guard lock(mutex_);
      CHECK(!ended_);
      auto& tokens = tokens_[response.sequence_index];
      tokens.insert(tokens.end(), response.tokens.begin(), response.tokens.end());
      if (response.is_sequence_final) ++num_final_;
      ended_ = response.is_final;
      if (ended_) end_.notify_one();
    };
  }
  std::map<int32_t, std::vector<int32_t>> wait() {
    std::unique_lock lock(mutex_);
    CHECK(end_.wait_for(lock, 30s, [this] { return ended_; }));
    CHECK_EQ(num_final_, tokens_.size());
    return tokens_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable end_;
  std::map<int32_t, std::vector<int32_t>> tokens_;
  size_t num_final_ = 0;
  bool ended_ = false;
};

std::vector<int32_t> prompt_of(int32_t length) {
  std::vector<int32_t> prompt(length);
  for (int32_t i = 0; i < length; ++i) prompt[i] = i * 7 % 1000;
  return prompt;
}

}  // namespace

TEST(each_of_several_sequences_ends_once_and_the_last_ends_the_request) {
  for (const bool streaming : {false, true}) {
    for (const int32_t count : {2, 4, 11}) {  // 11: more than there are slots
      BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {.max_responses_per_second = 5000});
      Request request = make_request(prompt_of(13), 9, streaming);
      request.num_return_sequences = count;
      SequenceCollector collector;
      manager.submit(request, collector.callback());
      const auto sequences = collector.wait();
      CHECK_EQ(sequences.size(), static_cast<size_t>(count));
      const auto expected = PagedEngine::expected_tokens(prompt_of(13), 9, 1000);
      for (const auto& [index, tokens] : sequences) CHECK(tokens == expected);
      CHECK_EQ(at_rest(manager).free_blocks, 40);
    }
  }
}

TEST(sequences_of_a_request_compute_its_prompt_once) {
  BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {});
  Request request = make_request(prompt_of(21), 20);
  request.num_return_sequences = 4;
  SequenceCollector collector;
  manager.submit(request, collector.callback());
  collector.wait();
  CHECK_EQ(at_rest(manager).context_tokens, 21u + 3u);  // the others feed its last token alone
}

TEST(a_step_that_fails_ends_all_sequences_of_its_requests) {
  set_log_sink([](LogLevel, const std::string&) {});
  auto engine = std::make_unique<PagedEngine>(small_engine());
  engine->before_finish = [steps = 0](const StepInput&) mutable {
    if (++steps == 3) throw_error(ErrorCode::kInternal, "device lost");
  };
  BatchManager manager(std::move(engine), {});
  std::mutex mutex;
  std::condition_variable changed;
  int failed = 0, final = 0;
  Request request = make_request(prompt_of(17), 20);
  request.num_return_sequences = 3;
  manager.submit(request, [&](RequestId, const Response& response) {
    std::lock_guard lock(mutex);
    if (response.error) ++failed;
    if (response.is_final) ++final;
    changed.notify_one();
  });
  std::unique_lock lock(mutex);
  CHECK(changed.wait_for(lock, 30s, [&] { return final == 1; }));
  CHECK_EQ(failed, 3);
  CHECK_EQ(at_rest(manager).free_blocks, 40);
}

TEST(drafts_change_how_many_steps_it_takes_and_nothing_else) {
  const auto expected = PagedEngine::expected_tokens(prompt_of(9), 12, 1000);
  for (const size_t right : {0u, 1u, 3u, 5u}) {
    auto engine = std::make_unique<PagedEngine>(small_engine());
    PagedEngine& raw = *engine;
    BatchManager manager(std::move(engine), {});
    Request request = make_request(prompt_of(9), 12);
    request.draft_tokens.assign(expected.begin(), expected.begin() + 5);
    if (right < 5) request.draft_tokens[right] = (request.draft_tokens[right] + 1) % 1000;
    Collector collector;
    manager.submit(request, collector.callback());
    CHECK(collector.wait().finish_reason == FinishReason::kLength);
    CHECK(collector.tokens() == expected);
    const Statistics statistics = at_rest(manager);
    CHECK_EQ(statistics.draft_tokens, 5u);
    CHECK_EQ(statistics.accepted_draft_tokens, right);
    CHECK_EQ(statistics.free_blocks, 40);
    CHECK_EQ(raw.steps.load(), 2 + 12 - right - 1);  // two chunks of prompt in steps of 8 tokens
  }
}

TEST(an_end_id_or_a_stop_word_among_accepted_drafts_ends_there) {
  const auto expected = PagedEngine::expected_tokens({3, 1}, 8, 1000);
  for (const bool stop_word : {false, true}) {
    BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {});
    Request request = make_request({3, 1}, 8);
    request.draft_tokens.assign(expected.begin(), expected.begin() + 5);
    if (stop_word) {
      request.stop_words = {{expected[2]}};
    } else {
      request.sampling.end_ids = {expected[3]};
    }
    Collector collector;
    manager.submit(request, collector.callback());
    CHECK(collector.wait().finish_reason == (stop_word ? FinishReason::kStopWords : FinishReason::kEndId));
    CHECK(collector.tokens() == std::vector<int32_t>(expected.begin(), expected.begin() + 3));
    CHECK_EQ(at_rest(manager).free_blocks, 40);
  }
}

TEST(prompt_lookup_drafts_what_followed_before) {
  EngineInfo info = small_engine();
  info.vocab_size = 2;  // so that the text repeats itself
  info.max_num_tokens = 16;
  BatchManager manager(std::make_unique<PagedEngine>(info), {.prompt_lookup = {.max_draft_tokens = 4}});
  Collector collector;
  manager.submit(make_request({0, 1, 1, 0, 1}, 50), collector.callback());
  collector.wait();
  CHECK(collector.tokens() == PagedEngine::expected_tokens({0, 1, 1, 0, 1}, 50, 2));
  const Statistics statistics = at_rest(manager);
  CHECK(statistics.accepted_draft_tokens > 0);
  CHECK_EQ(statistics.steps, 50 - statistics.accepted_draft_tokens);
}

TEST(prompt_lookup_of_endless_ngrams_is_refused) {
  BatchManagerOptions options;
  options.prompt_lookup = {.max_draft_tokens = 4, .max_ngram = 1 << 30};
  CHECK_ERROR(BatchManager(std::make_unique<PagedEngine>(small_engine()), options), ErrorCode::kInvalidArgument,
              "max_ngram 1073741824");
}

TEST(a_draft_model_saves_steps_and_changes_nothing_else) {
  for (const int32_t num_blocks : {100, 24}) {  // 24: not all sequences find room in the draft model's cache
    EngineInfo info = small_engine();
    info.max_num_tokens = 24;
    EngineInfo draft_info = info;
    draft_info.num_blocks = num_blocks;
    BatchManagerOptions options;
    options.draft_model = {std::make_shared<PagedEngine>(draft_info), 3};
    BatchManager manager(std::make_unique<PagedEngine>(info), options);
    for (const int32_t others : {0, 3, 9}) {
      const uint64_t before = at_rest(manager).steps;
      std::vector<Collector> collectors(1 + others);
      for (int32_t i = 0; i <= others; ++i) manager.submit(make_request({i, 4, 5}, 40), collectors[i].callback());
      for (int32_t i = 0; i <= others; ++i) {
        collectors[i].wait();
        CHECK(collectors[i].tokens() == PagedEngine::expected_tokens({i, 4, 5}, 40, 1000));
      }
      if (others == 0) CHECK_EQ(at_rest(manager).steps - before, 11u);  // 1, then 4 tokens a step
    }
    CHECK_EQ(at_rest(manager).free_blocks, 40);
  }
}

TEST(a_draft_model_reads_anew_what_a_failed_step_has_not) {
  for (const int failing_step : {1, 2, 4, 5}) {
    int failures = 0;
    set_log_sink([&](LogLevel, const std::string&) { ++failures; });
    EngineInfo info = small_engine();
    info.max_num_tokens = 24;
    auto draft_engine = std::make_shared<PagedEngine>(info);
    draft_engine->before_run = [&, steps = 0](const StepInput&) mutable {
      if (++steps == failing_step) throw_error(ErrorCode::kInternal, "device lost");
    };
    BatchManagerOptions options;
    options.draft_model = {draft_engine, 3};
    BatchManager manager(std::make_unique<PagedEngine>(info), options);
    Collector collector;
    manager.submit(make_request({3, 4, 5}, 40), collector.callback());
    collector.wait();
    CHECK(collector.tokens() == PagedEngine::expected_tokens({3, 4, 5}, 40, 1000));
    CHECK(at_rest(manager).steps <= 12);  // 11 without the failure
    CHECK_EQ(failures, 1);
  }
}

TEST(a_draft_model_that_does_not_fit_is_refused) {
  EngineInfo other = small_engine();
  other.vocab_size = 999;
  BatchManagerOptions options;
  options.draft_model.engine = std::make_shared<PagedEngine>(other);
  CHECK_ERROR(BatchManager(std::make_unique<PagedEngine>(small_engine()), options), ErrorCode::kInvalidArgument,
              "its vocab_size is 999, the target's 1000");
  other = small_engine();
  other.max_num_tokens = 3;
  options.draft_model.engine = std::make_shared<PagedEngine>(other);
  CHECK_ERROR(BatchManager(std::make_unique<PagedEngine>(small_engine()), options), ErrorCode::kInvalidArgument,
              "its max_num_tokens is 3");
}

TEST(beams_have_slots_and_blocks_of_their_own_and_give_them_back) {
  for (const int32_t width : {2, 4}) {
    EngineInfo info = small_engine();
    info.max_beam_width = 4;
    BatchManager manager(std::make_unique<PagedEngine>(info), {});  // it checks each beam's history in every step
    for (const int32_t prompt : {1, 4, 7, 19}) {
      Request request = make_request(prompt_of(prompt), 12);
      request.beam_search.beam_width = width;
      request.num_return_sequences = width;
      Collector collector;
      manager.submit(request, collector.callback());
      const Response& last = collector.wait();
      CHECK(!last.error);
      CHECK_EQ(last.beams.size(), static_cast<size_t>(width));
      for (const Beam& beam : last.beams) CHECK_EQ(beam.tokens.size(), 12u);
      CHECK_EQ(at_rest(manager).free_blocks, 40);
    }
  }
}

TEST(cancelled_beams_give_what_they_have) {
  EngineInfo info = small_engine();
  info.max_beam_width = 4;
  auto engine = std::make_unique<PagedEngine>(info);
  engine->before_finish = [](const StepInput&) { std::this_thread::sleep_for(1ms); };
  BatchManager manager(std::move(engine), {});
  Request request = make_request(prompt_of(5), 50);
  request.beam_search.beam_width = 3;
  Collector collector;
  const RequestId id = manager.submit(request, collector.callback());
  while (manager.statistics().steps < 5) std::this_thread::sleep_for(100us);
  manager.cancel(id);
  const Response& last = collector.wait();
  CHECK(last.finish_reason == FinishReason::kCancelled);
  CHECK_EQ(last.beams.size(), 1u);
  CHECK(last.beams[0].tokens.size() >= 4);
  CHECK_EQ(at_rest(manager).free_blocks, 40);
}

TEST(beams_that_had_no_candidates_find_their_blocks_when_they_branch_again) {
  EngineInfo info = small_engine();
  info.max_beam_width = 2;
  info.num_blocks = 9;  // 7 for the beams: not enough beside them for the other request
  auto engine = std::make_unique<PagedEngine>(info);
  engine->change_candidates = [first_slot = -1](const SequenceSlice& slice, std::vector<SampledToken>& best) mutable {
    if (slice.past_length != 4) return;
    if (first_slot < 0) first_slot = slice.slot;
    for (size_t i = slice.slot == first_slot ? 1 : 0; i < best.size(); ++i) best[i].log_prob = -INFINITY;
  };
  BatchManager manager(std::move(engine), {});
  Request beams = make_request(prompt_of(4), 12);
  beams.beam_search.beam_width = 2;
  beams.num_return_sequences = 2;
  Collector search, other;
  manager.submit(beams, search.callback());
  manager.submit(make_request(prompt_of(5), 5), other.callback());
  CHECK(!search.wait().error);
  CHECK_EQ(search.wait().beams.size(), 2u);
  CHECK(other.wait().finish_reason == FinishReason::kLength);
  CHECK_EQ(at_rest(manager).free_blocks, 9);
}

TEST(sequences_of_a_request_share_a_static_batch) {
  for (const bool reuse : {false, true}) {
    BatchManager manager(std::make_unique<PagedEngine>(small_engine()),
                         {.scheduler_policy = SchedulerPolicy::kStaticBatch, .enable_kv_cache_reuse = reuse});
    Request request = make_request(prompt_of(8), 10);
    request.num_return_sequences = 4;
    SequenceCollector collector;
    manager.submit(request, collector.callback());
    for (const auto& [index, tokens] : collector.wait()) {
      CHECK(tokens == PagedEngine::expected_tokens(prompt_of(8), 10, 1000));
    }
    CHECK(at_rest(manager).steps < 20);  // one after another would take 40
  }
}

TEST(logits_come_with_their_tokens) {
  BatchManager manager(std::make_unique<PagedEngine>(small_engine()), {});
  const auto prompt = prompt_of(11);
  const auto expected = PagedEngine::expected_tokens(prompt, 6, 1000);
  Request request = make_request(prompt, 6, /*streaming=*/false);
  request.return_context_logits = true;
  request.return_generation_logits = true;
  request.draft_tokens = {expected[0], expected[1]};
  Collector collector;
  manager.submit(request, collector.callback());
  const Response& last = collector.wait();
  CHECK(last.context_logits != nullptr);
  CHECK_EQ(last.context_logits->size(), 11u * 1000u);
  CHECK_EQ((*last.context_logits)[10 * 1000 + expected[0]], 1.0f);
  CHECK_EQ(last.generation_logits.size(), 6u * 1000u);
  for (size_t i = 0; i < 6; ++i) CHECK_EQ(last.generation_logits[i * 1000 + expected[i]], 1.0f);
}

TEST_MAIN()
