#include "batch_manager/guided/guide_budget.h"

#include <ctime>
#include <utility>

#include "common/error.h"

namespace inflight {
namespace {

constexpr double kMaxCompileSeconds = 30;   // a schema with 900 strings of bounded length takes 20
constexpr int32_t kMaxMasks = 100'000;      // of a few bytes to a bit a token each
constexpr int32_t kMaxParserSteps = 1 << 20;  // of a mask: some 50 ms; that of a large schema takes a hundredth of it

thread_local GuideBudget* current = nullptr;
thread_local int32_t uncounted_parser_steps = 0;
constexpr int32_t kInterval = 256;

// CPU time, since what a guide costs must not depend on who else is busy.
double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace

GuideBudget::GuideBudget() { current = this; }
GuideBudget::~GuideBudget() { current = nullptr; }

CompileBudget::CompileBudget(std::function<bool()> is_stopped)
    : is_stopped_(std::move(is_stopped)), begin_(thread_seconds()) {}

void CompileBudget::spend_mask() {
  if (++num_masks_ > kMaxMasks) {
    throw_error(ErrorCode::kInvalidArgument, "the guide has more than ", kMaxMasks,
                " positions; ask for a shorter text");
  }
  spend_parser_steps(0);
}

void CompileBudget::spend_parser_steps(int32_t) {
  if (is_stopped_()) throw_error(ErrorCode::kUnavailable, "the compile was stopped");
  if (thread_seconds() - begin_ > kMaxCompileSeconds) {
    throw_error(ErrorCode::kInvalidArgument, "the guide takes more than ", kMaxCompileSeconds,
                " s to compile; make it smaller or simpler");
  }
}

void MaskBudget::spend_parser_steps(int32_t count) {
  num_parser_steps_ += count;
  if (num_parser_steps_ <= kMaxParserSteps) return;
  throw_error(
      ErrorCode::kInvalidArgument,
      "guided_decoding: the text can follow the guide in too many ways; say more clearly where a repetition ends");
}

void count_mask() {
  if (current != nullptr) current->spend_mask();
}

void count_parser_step() {
  if (++uncounted_parser_steps < kInterval) return;
  uncounted_parser_steps = 0;
  if (current != nullptr) current->spend_parser_steps(kInterval);
}

}  // namespace inflight
