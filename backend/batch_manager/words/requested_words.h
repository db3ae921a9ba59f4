#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <utility>

#include "batch_manager/request.h"
#include "batch_manager/words/compiled_words.h"

namespace inflight {

// The words of a request, which are compiled by and by. Thread-safe.
class RequestedWords {
 public:
  RequestedWords() : words_(std::make_shared<CompiledWords>()), is_ready_(true) {}  // none
  explicit RequestedWords(std::shared_ptr<const Request> request) : request_(std::move(request)) {}

  bool is_ready() const { return is_ready_.load(std::memory_order_acquire); }
  // Only when it is ready. Throws what went wrong in the compiler's thread.
  const std::shared_ptr<const CompiledWords>& get() const {
    if (failure_) std::rethrow_exception(failure_);
    return words_;
  }

  std::shared_ptr<const Request> request() const { return request_.lock(); }  // null: it is gone
  // Of the compiler, one of them, once.
  void set(std::shared_ptr<const CompiledWords> words) {
    words_ = std::move(words);
    is_ready_.store(true, std::memory_order_release);
  }
  void fail(std::exception_ptr failure) {
    failure_ = std::move(failure);
    is_ready_.store(true, std::memory_order_release);
  }

 private:
  const std::weak_ptr<const Request> request_;
  std::shared_ptr<const CompiledWords> words_;
  std::exception_ptr failure_;
  std::atomic<bool> is_ready_ = false;
};

}  // namespace inflight
