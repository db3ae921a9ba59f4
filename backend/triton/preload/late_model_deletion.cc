// Preloaded into tritonserver by the launcher: models are deleted a moment after they were unloaded.
//
// A model's backend thread takes its instance off a list while it works on it, and puts it back when the work is done
// and reported (TritonBackendThread::BackendThread). ~TritonModel takes the last of that list without a lock
// (StopBackendThread): where a model is unloaded just after it was loaded, or after its last request was released, the
// list may still be empty, and the server ends with signal 11. The thread is then a few microseconds from having put it
// back, more if it waits for a core. Triton deletes each model on a thread of its own, for which nobody waits.

#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <thread>
#include <typeinfo>
#include <utility>

#include "triton/preload/called_from_executable.h"

namespace {

constexpr std::chrono::milliseconds kDelay(100);

class Late : public std::thread::_State {
 public:
  explicit Late(std::unique_ptr<std::thread::_State> state) : state_(std::move(state)) {}

  void _M_run() override {
    std::this_thread::sleep_for(kDelay);
    state_->_M_run();
  }

 private:
  const std::unique_ptr<std::thread::_State> state_;
};

bool deletes_a_model(const std::thread::_State& state) {
  return std::strstr(typeid(state).name(), "triton4core12_GLOBAL__N_112ModelDeleter") != nullptr;
}

using StartThread = void(std::thread*, std::unique_ptr<std::thread::_State>&, void (*)());

}  // namespace

// std::thread::_M_start_thread(std::unique_ptr<_State>, void (*)()) of libstdc++: what every std::thread starts with. A
// parameter that has a destructor is passed as a reference.
#define START_THREAD "_ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE"

extern "C"
    __attribute__((visibility("default"))) void inflight_start_thread(std::thread* thread,
                                                                      std::unique_ptr<std::thread::_State>& state,
                                                                      void (*depend)()) __asm__(START_THREAD);

void inflight_start_thread(std::thread* thread, std::unique_ptr<std::thread::_State>& state, void (*depend)()) {
  static const auto next = inflight::next_function<StartThread>(START_THREAD);
  if (state != nullptr && deletes_a_model(*state)) state.reset(new Late(std::move(state)));
  next(thread, state, depend);
}
