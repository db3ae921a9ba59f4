#pragma once

#include <cstdint>
#include <functional>

namespace inflight {

// Bounds what xgrammar compiles on this thread while it lives. The library has no way to interrupt a compile that takes
// minutes; xgrammar.cmake makes it call continue_compile() before each token mask, which is where the time goes.
class CompileBudget {
 public:
  // The compile ends with Error(kUnavailable) once is_stopped() (must not throw) is true, with Error(kInvalidArgument)
  // once it has taken too much of this thread's CPU time or made too many masks.
  explicit CompileBudget(std::function<bool()> is_stopped);
  ~CompileBudget();
  CompileBudget(const CompileBudget&) = delete;
  CompileBudget& operator=(const CompileBudget&) = delete;

  void spend_mask();

 private:
  const std::function<bool()> is_stopped_;
  const double begin_;  // seconds of this thread's CPU time
  int32_t num_masks_ = 0;
};

// Throws Error when this thread's budget is spent.
void continue_compile();

}  // namespace inflight
