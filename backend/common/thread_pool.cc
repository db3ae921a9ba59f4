#include "common/thread_pool.h"

#include <chrono>
#include <system_error>
#include <utility>

#include "common/available_cpus.h"
#include "common/error.h"

namespace inflight {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(50);
constexpr int kSpinsPerClockRead = 64;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until condition() holds; false when kSpinTime passed first.
template <class Condition>
bool spin_until(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < kSpinsPerClockRead; ++i) {
      if (condition()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  if (num_threads < 0) {
    throw_error(ErrorCode::kInvalidArgument, "num_threads is ", num_threads, "; it must be >= 0 (0: one for each CPU)");
  }
  if (num_threads == 0) num_threads = available_cpus();
  try {
    for (int thread = 1; thread < num_threads; ++thread) {
      workers_.emplace_back([this, thread] { worker_loop(thread); });
    }
  } catch (const std::system_error& e) {
    const size_t started = workers_.size() + 1;
    stop();
    throw_error(ErrorCode::kInvalidArgument, "only ", started, " of ", num_threads, " threads could be started (",
                e.what(), "); ask for fewer");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stopping_ = true;
  generation_.fetch_add(2);  // still even: closed
  generation_.notify_all();
  for (auto& worker : workers_) worker.join();
}

// A worker that is late (asleep, or without a CPU) is not waited for: it counts itself in with inside_
// before it looks whether the loop is still open, and the caller closes the loop before it looks at
// inside_, so one of the two sees the other.
void ThreadPool::run(int64_t count, Call call, void* context) {
  if (count <= 0) return;
  call_ = call;
  context_ = context;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  const bool shared = count > 1 && !workers_.empty();
  if (shared) {
    generation_.fetch_add(1);
    generation_.notify_all();
  }
  work(0);
  if (shared) {
    generation_.fetch_add(1);
    while (!spin_until([this] { return inside_.load() == 0; })) std::this_thread::yield();
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::work(int thread) {
  try {
    for (int64_t index; (index = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) {
      call_(context_, index, thread);
    }
  } catch (...) {
    next_.store(count_, std::memory_order_relaxed);
    std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadPool::worker_loop(int thread) {
  uint32_t seen = 0;
  while (true) {
    const auto changed = [&] { return generation_.load() != seen; };
    if (!spin_until(changed)) generation_.wait(seen);
    inside_.fetch_add(1);
    seen = generation_.load();
    if (seen % 2 == 1) work(thread);
    inside_.fetch_sub(1);
    if (stopping_) return;  // asked after `seen` is read: what is seen after a stop never changes again
  }
}

}  // namespace inflight
