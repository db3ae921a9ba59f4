#pragma once

#include <cstdint>
#include <functional>

namespace inflight {

// Bounds what xgrammar does on this thread for one guide while it lives. The library has no way to interrupt a compile
// that takes minutes, nor a mask of a grammar that a text follows in more and more ways; xgrammar.cmake makes it call
// count_mask() and count_parser_step() where the time goes.
class GuideBudget {
 public:
  GuideBudget(const GuideBudget&) = delete;
  GuideBudget& operator=(const GuideBudget&) = delete;
  virtual ~GuideBudget();

  // When the budget is spent, these throw Error; what xgrammar was at cannot be used any more.
  virtual void spend_mask() {}
  virtual void spend_parser_steps(int32_t count) = 0;

 protected:
  GuideBudget();
};

// Of a compile. It ends with Error(kUnavailable) once is_stopped() (must not throw) is true, with
// Error(kInvalidArgument) once it has taken too much of this thread's CPU time or made too many masks.
class CompileBudget final : public GuideBudget {
 public:
  explicit CompileBudget(std::function<bool()> is_stopped);
  void spend_mask() override;
  void spend_parser_steps(int32_t count) override;

 private:
  const std::function<bool()> is_stopped_;
  const double begin_;  // seconds of this thread's CPU time
  int32_t num_masks_ = 0;
};

// Of one mask of one sequence, for which a step and all that run in it wait.
class MaskBudget final : public GuideBudget {
 public:
  void spend_parser_steps(int32_t count) override;

 private:
  int32_t num_parser_steps_ = 0;
};

// Called by xgrammar: before it compiles the token mask of a position in a grammar, and as its parser goes through the
// ways in which a text can follow one.
void count_mask();
void count_parser_step();

}  // namespace inflight
