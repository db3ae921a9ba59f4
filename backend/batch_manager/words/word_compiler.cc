#include "batch_manager/words/word_compiler.h"

#include <exception>
#include <utility>

namespace inflight {
namespace {

constexpr size_t kFew = 256;  // tokens: they take about 10 µs

bool are_few(const Request& request) { return request.stop_words.length() + request.bad_words.length() <= kFew; }

}  // namespace

WordCompiler::WordCompiler(std::function<void()> on_compiled)
    : on_compiled_(std::move(on_compiled)), thread_([this] { run(); }) {}

WordCompiler::~WordCompiler() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

std::shared_ptr<const RequestedWords> WordCompiler::compile(const std::shared_ptr<const Request>& request) {
  auto words = std::make_shared<RequestedWords>(request);
  if (are_few(*request)) {
    words->set(compile(*request));
    return words;
  }
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(words);
  }
  changed_.notify_one();
  return words;
}

void WordCompiler::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_stopping_ || !waiting_.empty(); });
    if (is_stopping_) return;
    const std::shared_ptr<RequestedWords> words = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    if (const auto request = words->request()) {
      try {
        words->set(compile(*request));
      } catch (...) {
        words->fail(std::current_exception());
      }
      if (on_compiled_) on_compiled_();
    }
    lock.lock();
  }
}

std::shared_ptr<const CompiledWords> WordCompiler::compile(const Request& request) const {
  return std::make_shared<const CompiledWords>(
      CompiledWords{WordAutomaton(request.stop_words), BadWords(request.bad_words)});
}

}  // namespace inflight
