#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "batch_manager/words/requested_words.h"

namespace inflight {

// Makes the CompiledWords of requests: at once where there are few, long lists on a thread of its own, so that neither
// those who submit nor the batch manager's loop wait for them.
class WordCompiler {
 public:
  // tokenizer_dir: of the tokens' texts, which are read when a request first has stop texts. on_compiled (may be empty)
  // is called from the compiler's thread when words are ready that were not at first; it must not throw.
  WordCompiler(std::filesystem::path tokenizer_dir, std::function<void()> on_compiled);
  ~WordCompiler();  // words that are not ready yet never will be

  // A request that is gone by its turn is passed over. May be called from any thread.
  std::shared_ptr<const RequestedWords> compile(const std::shared_ptr<const Request>& request);

 private:
  void run();
  std::shared_ptr<const TokenTexts> known_texts();
  std::shared_ptr<const TokenTexts> read_texts();

  const std::filesystem::path tokenizer_dir_;
  const std::function<void()> on_compiled_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<RequestedWords>> waiting_;
  std::shared_ptr<const TokenTexts> token_texts_;  // once read
  bool is_stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace inflight
