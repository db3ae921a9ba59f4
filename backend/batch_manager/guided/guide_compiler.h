#pragma once
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "batch_manager/guided/compiled_guide.h"
#include "batch_manager/request.h"

namespace inflight {

// Compiles guides for one vocabulary on a thread of its own, one after another, and keeps those used last.
class GuideCompiler {
 public:
  using Future = std::shared_future<std::shared_ptr<const CompiledGuide>>;

  explicit GuideCompiler(GuidedVocabulary vocabulary);
  ~GuideCompiler();  // futures that are not ready then throw Error(kUnavailable); on_done is not called for them

  // As GuidedDecoder::compile.
  Future compile(const GuidedDecoding& guide, std::function<void()> on_done);

 private:
  struct Job {
    GuidedDecoding guide;
    std::promise<std::shared_ptr<const CompiledGuide>> promise;
    Future future;
    std::vector<std::function<void()>> on_done;
    int64_t bytes = 0;
    bool is_done = false;
  };
  using Jobs = std::list<std::shared_ptr<Job>>;

  void run();
  void forget_old_jobs();

  std::shared_ptr<const GuidedVocabulary> vocabulary_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_stopping_ = false;
  Jobs jobs_;  // asked for last, first; done or not
  int64_t bytes_ = 0;  // of those that are done
  std::map<std::pair<GuidedDecoding::Type, std::string>, Jobs::iterator> by_guide_;
  std::list<std::shared_ptr<Job>> waiting_;
  std::thread thread_;
};

}  // namespace inflight
