// Preloaded into tritonserver by the launcher: a send() that keeps what Triton would lose.
//
// Triton's HTTP front end passes response callbacks to its threads through non-blocking Unix socket pairs and ignores
// the error when one is full (evthr_defer of libevhtp, at about 270 pending callbacks): the callback is lost, and its
// stream loses text or never ends. Here the message waits in memory and follows as soon as there is room. The sender
// must not wait instead: it holds locks that the reading thread needs. Other sockets, and messages of one byte
// (libevent's wake-ups), are left alone.

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using Send = ssize_t (*)(int, const void*, size_t, int);

constexpr int kPollMs = 10;  // until a socket that has overflowed meanwhile is polled, too

ssize_t send_now(int socket, const void* data, size_t size, int flags) {
  static const auto next_send = reinterpret_cast<Send>(dlsym(RTLD_NEXT, "send"));
  return next_send(socket, data, size, flags);
}

bool is_unix_socket(int socket) {
  int domain = 0;
  socklen_t size = sizeof domain;
  return getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

// The bytes that wait for room, by socket, and the thread that sends them.
class Overflow {
 public:
  bool is_empty() const { return is_empty_.load(std::memory_order_acquire); }

  // Sends, or keeps all of it behind what this socket's queue holds already.
  ssize_t send(int socket, const void* data, size_t size, int flags) {
    std::lock_guard lock(mutex_);
    auto queue = queues_.find(socket);
    if (queue == queues_.end()) {
      const ssize_t sent = send_now(socket, data, size, flags);
      if (sent >= 0 || errno != EAGAIN) return sent;
      if (!is_unix_socket(socket)) {
        errno = EAGAIN;
        return -1;
      }
      start_thread();
      queue = queues_.emplace(socket, std::string()).first;
      is_empty_.store(false, std::memory_order_release);
      filled_.notify_one();
    }
    queue->second.append(static_cast<const char*>(data), size);
    return static_cast<ssize_t>(size);
  }

 private:
  void start_thread() {
    if (has_thread_) return;
    std::thread([this] { run(); }).detach();
    has_thread_ = true;
  }

  void run() {
    while (true) {
      std::vector<pollfd> sockets;
      {
        std::unique_lock lock(mutex_);
        filled_.wait(lock, [this] { return !queues_.empty(); });
        for (const auto& [socket, queue] : queues_) sockets.push_back({socket, POLLOUT, 0});
      }
      if (poll(sockets.data(), sockets.size(), kPollMs) <= 0) continue;
      std::lock_guard lock(mutex_);
      for (const pollfd& socket : sockets) {
        if (socket.revents != 0) flush(socket.fd);
      }
      is_empty_.store(queues_.empty(), std::memory_order_release);
    }
  }

  void flush(int socket) {
    if (!is_unix_socket(socket)) {  // closed meanwhile, and its number given to a client's connection
      queues_.erase(socket);
      return;
    }
    std::string& queue = queues_.at(socket);
    const ssize_t sent = send_now(socket, queue.data(), queue.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) queue.erase(0, sent);
    const bool is_closed = sent < 0 && errno != EAGAIN && errno != EINTR;
    if (queue.empty() || is_closed) queues_.erase(socket);
  }

  std::atomic<bool> is_empty_ = true;
  std::mutex mutex_;
  std::condition_variable filled_;
  std::map<int, std::string> queues_;
  bool has_thread_ = false;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) ssize_t send(int socket, const void* data, size_t size, int flags) {
  static Overflow& overflow = *new Overflow;  // outlives the threads that send while the process exits
  if (overflow.is_empty() || size <= 1) {
    const ssize_t sent = send_now(socket, data, size, flags);
    if (sent >= 0 || errno != EAGAIN || size <= 1) return sent;
  }
  try {
    return overflow.send(socket, data, size, flags);
  } catch (const std::exception&) {
    errno = EAGAIN;
    return -1;
  }
}
