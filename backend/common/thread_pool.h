#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace inflight {

// Fork-join parallelism for kernels of a few microseconds: the caller and size() - 1 persistent workers.
//
// Idle workers spin for some tens of microseconds, so that the many short loops of one forward pass
// follow each other without a system call, and then sleep: an idle server uses no CPU.
// One thread at a time may call parallel_for, and not from inside a body.
class ThreadPool {
 public:
  // num_threads >= 1 counts the caller; 0 → available_cpus().
  explicit ThreadPool(int num_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(index) or body(index, thread) once for every index in [0, count), in any order; `thread`
  // in [0, size()) is the same only for calls that do not run at the same time. Returns when all have
  // returned. The first exception of a body is rethrown here; indices not yet begun are then left out.
  // Threads take one index at a time (some tens of nanoseconds): make each worth a microsecond.
  template <class Body>
  void parallel_for(int64_t count, Body&& body) {
    using Function = std::remove_reference_t<Body>;
    run(
        count,
        [](void* context, int64_t index, int thread) {
          auto& function = *static_cast<Function*>(context);
          if constexpr (std::is_invocable_v<Function&, int64_t, int>) {
            function(index, thread);
          } else {
            function(index);
          }
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Call = void (*)(void* context, int64_t index, int thread);

  void run(int64_t count, Call call, void* context);
  void work(int thread);
  void worker_loop(int thread);
  void stop();

  // The current loop; written only while generation_ is even and no worker is inside.
  Call call_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;

  alignas(64) std::atomic<uint32_t> generation_{0};  // odd while a loop is open to workers
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<int64_t> next_{0};   // index to be taken next
  alignas(64) std::atomic<int32_t> inside_{0};  // workers that may be looking at the current loop

  std::mutex failure_mutex_;
  std::exception_ptr failure_;
  std::vector<std::thread> workers_;
};

}  // namespace inflight
