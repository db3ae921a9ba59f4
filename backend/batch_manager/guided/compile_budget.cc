#include "batch_manager/guided/compile_budget.h"

#include <ctime>
#include <utility>

#include "common/error.h"

namespace inflight {
namespace {

constexpr double kMaxSeconds = 30;       // a schema with 900 strings of bounded length takes 20
constexpr int32_t kMaxMasks = 100'000;  // of a few bytes to a bit a token each

thread_local CompileBudget* current = nullptr;

// CPU time, since what a guide costs must not depend on who else is busy.
double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

CompileBudget::CompileBudget(std::function<bool()> is_stopped)
    : is_stopped_(std::move(is_stopped)), begin_(thread_seconds()) {
  current = this;
}

CompileBudget::~CompileBudget() { current = nullptr; }

void CompileBudget::spend_mask() {
  if (is_stopped_()) throw_error(ErrorCode::kUnavailable, "the compile was stopped");
  if (++num_masks_ > kMaxMasks) {
    throw_error(ErrorCode::kInvalidArgument, "the guide has more than ", kMaxMasks, " positions; ask for a shorter text");
  }
  if (thread_seconds() - begin_ > kMaxSeconds) {
    throw_error(ErrorCode::kInvalidArgument, "the guide takes more than ", kMaxSeconds,
                " s to compile; make it smaller or simpler");
  }
}

void continue_compile() {
  if (current != nullptr) current->spend_mask();
}

}  // namespace inflight
