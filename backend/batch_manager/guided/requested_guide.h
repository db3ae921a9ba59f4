#pragma once

#include <atomic>
#include <memory>
#include <optional>

#include "batch_manager/request.h"
#include "common/error.h"

namespace inflight {

class CompiledGuide;

// A guide that is compiled for those who hold it: what nobody holds any more is not compiled, and a compile that runs
// for it is stopped. Thread-safe.
class RequestedGuide {
 public:
  explicit RequestedGuide(GuidedDecoding guide) : guide_(std::move(guide)) {}

  bool is_ready() const { return is_ready_.load(std::memory_order_acquire); }
  // Waits until it is ready. Throws Error(kInvalidArgument) naming guided_decoding, its type and what is wrong, or
  // Error(kUnavailable) when the decoder has gone.
  std::shared_ptr<const CompiledGuide> get() const;

  const GuidedDecoding& guide() const { return guide_; }
  // Of the compiler, once.
  void finish(std::shared_ptr<const CompiledGuide> compiled);
  void fail(Error error);

 private:
  void set_ready();

  const GuidedDecoding guide_;
  std::shared_ptr<const CompiledGuide> compiled_;
  std::optional<Error> error_;
  std::atomic<bool> is_ready_ = false;
};

}  // namespace inflight
