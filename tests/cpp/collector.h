#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "batch_manager/batch_manager.h"
#include "check.h"

// What tests of the batch manager share.
namespace inflight::test {

inline EngineInfo small_engine() {
  EngineInfo info;
  info.model_type = "llama";
  info.vocab_size = 1000;
  info.max_batch_size = 4;
  info.max_num_tokens = 8;
  info.max_seq_len = 64;
  info.tokens_per_block = 4;
  info.num_blocks = 40;
  info.kv_bytes_per_block = 1024;
  info.pad_id = 0;
  return info;
}

// Everything that one request was sent.
class Collector {
 public:
  ResponseCallback callback() {
    return [this](RequestId, const Response& response) {
      std::lock_guard lock(mutex_);
      CHECK(!ended_);
      CHECK(response.preceding_tokens.size() <= kPrecedingTokens);
      const size_t preceding = std::min(tokens_.size(), kPrecedingTokens);
      CHECK_EQ(response.preceding_tokens.size(), preceding);
      CHECK(std::equal(response.preceding_tokens.rbegin(), response.preceding_tokens.rend(), tokens_.rbegin()));
      tokens_.insert(tokens_.end(), response.tokens.begin(), response.tokens.end());
      last_ = response;
      last_.logits_memory.reset();  // what is kept here must not hold up others
      ++responses_;
      ended_ = response.is_final;
      if (ended_) end_.notify_one();
    };
  }

  const Response& wait() {
    std::unique_lock lock(mutex_);
    CHECK(end_.wait_for(lock, std::chrono::seconds(30), [this] { return ended_; }));
    return last_;
  }
  std::vector<int32_t> tokens() {
    std::lock_guard lock(mutex_);
    return tokens_;
  }
  int responses() {
    std::lock_guard lock(mutex_);
    return responses_;
  }

 private:
  std::mutex mutex_;
  std::vector<int32_t> tokens_;
  Response last_;
  int responses_ = 0;
  bool ended_ = false;
  std::condition_variable end_;
};

inline Request make_request(std::vector<int32_t> prompt, int32_t max_new_tokens, bool streaming = true) {
  Request request;
  request.input_ids = std::move(prompt);
  request.max_new_tokens = max_new_tokens;
  request.streaming = streaming;
  request.sampling.end_ids = {-1};
  return request;
}

inline std::vector<int32_t> random_tokens(std::mt19937& random, int32_t count) {
  std::vector<int32_t> tokens(count);
  for (auto& token : tokens) token = random() % 1000;
  return tokens;
}

// Statistics are published after a step; wait until the manager is at rest.
inline Statistics at_rest(const BatchManager& manager) {
  for (int i = 0; i < 3000; ++i) {
    const Statistics statistics = manager.statistics();
    if (statistics.running_sequences == 0 && statistics.queued_sequences == 0) return statistics;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(!"the batch manager came to rest");
  return {};
}

}  // namespace inflight::test
