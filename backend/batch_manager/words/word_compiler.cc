#include "batch_manager/words/word_compiler.h"

#include <exception>
#include <utility>

namespace inflight {
namespace {

constexpr size_t kFew = 256;  // tokens, or bytes of texts: they take about 10 µs

bool are_few(const Request& request) {
  size_t length = request.stop_words.length() + request.bad_words.length();
  for (const std::string& text : request.stop_texts.texts) length += text.size();
  return length <= kFew;
}

std::shared_ptr<const CompiledWords> compile_words(const Request& request, std::shared_ptr<const TokenTexts> texts) {
  return std::make_shared<const CompiledWords>(
      CompiledWords{StopWords(request.stop_words, request.stop_texts, std::move(texts)), BadWords(request.bad_words)});
}

}  // namespace

WordCompiler::WordCompiler(std::filesystem::path tokenizer_dir, std::function<void()> on_compiled)
    : tokenizer_dir_(std::move(tokenizer_dir)), on_compiled_(std::move(on_compiled)), thread_([this] { run(); }) {}

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
  const bool has_texts = !request->stop_texts.texts.empty();
  const auto texts = has_texts ? known_texts() : nullptr;
  if (are_few(*request) && has_texts == (texts != nullptr)) {
    words->set(compile_words(*request, texts));
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
        words->set(compile_words(*request, request->stop_texts.texts.empty() ? nullptr : read_texts()));
      } catch (...) {
        words->fail(std::current_exception());
      }
      if (on_compiled_) on_compiled_();
    }
    lock.lock();
  }
}

std::shared_ptr<const TokenTexts> WordCompiler::known_texts() {
  const std::lock_guard lock(mutex_);
  return token_texts_;
}

std::shared_ptr<const TokenTexts> WordCompiler::read_texts() {
  if (auto known = known_texts()) return known;
  auto texts = std::make_shared<const TokenTexts>(tokenizer_dir_);
  const std::lock_guard lock(mutex_);
  token_texts_ = texts;
  return texts;
}

}  // namespace inflight
