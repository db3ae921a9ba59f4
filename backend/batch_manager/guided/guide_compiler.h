#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "batch_manager/guided/compiled_guide.h"
#include "batch_manager/guided/requested_guide.h"

namespace inflight {

// Compiles guides for one vocabulary on threads of its own and keeps those used last. Large guides never have all of
// the threads, so that small ones do not wait for them.
class GuideCompiler {
 public:
  // on_compiled (may be empty) is called from a compiling thread when a guide is ready; it must not throw.
  GuideCompiler(GuidedVocabulary vocabulary, std::function<void()> on_compiled);
  // Stops compiles that run. Guides that are not ready fail with Error(kUnavailable), without a call of on_compiled.
  ~GuideCompiler();

  // As GuidedDecoder::compile.
  std::shared_ptr<const RequestedGuide> compile(const GuidedDecoding& guide);

 private:
  using Key = std::pair<GuidedDecoding::Type, std::string>;
  struct Kept {
    std::shared_ptr<RequestedGuide> guide;  // ready
    int64_t bytes;
  };

  void run();
  std::shared_ptr<RequestedGuide> take_waiting();
  void drop_unwanted();
  void check_room(bool for_large) const;
  void compile(std::shared_ptr<RequestedGuide> guide);
  void keep(std::shared_ptr<RequestedGuide> guide, int64_t bytes);

  const std::shared_ptr<const GuidedVocabulary> vocabulary_;
  const std::function<void()> on_compiled_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> is_stopping_ = false;
  std::list<Kept> kept_;  // used last, first
  int64_t kept_bytes_ = 0;
  std::map<Key, std::list<Kept>::iterator> kept_by_key_;
  std::map<Key, std::weak_ptr<RequestedGuide>> unready_;  // waiting or being compiled
  std::list<std::weak_ptr<RequestedGuide>> waiting_;      // first come, first
  int num_large_ = 0;                                     // of those being compiled
  int num_threads_;
  std::vector<std::thread> threads_;
};

}  // namespace inflight
