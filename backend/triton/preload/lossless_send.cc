// Preloaded into tritonserver by the launcher: a send() that keeps what Triton would lose.
//
// Triton's HTTP front end passes response callbacks to its threads through non-blocking Unix stream socket pairs,
// messages of 17 bytes, and ignores the error when one is full (evthr_defer of libevhtp, at about 270 pending
// callbacks): the callback is lost, and its stream loses text or never ends. Here the message waits in memory and
// follows as soon as there is room. The sender must not wait instead: it holds locks that the reading thread needs.
//
// Only the pairs that the executable itself has made are such channels (its libraries, and the backends, have others),
// and messages of one byte, libevent's wake-ups, are left alone: one comes from a signal handler.

#include "triton/preload/lossless_send.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "triton/preload/called_from_executable.h"

namespace {

constexpr int kMaxDescriptors = 1 << 16;
constexpr int kPollMs = 10;  // until a channel that has overflowed meanwhile is polled, too

ssize_t send_now(int socket, const void* data, size_t size, int flags) {
  static const auto next_send = inflight::next_function<ssize_t(int, const void*, size_t, int)>("send");
  return next_send(socket, data, size, flags);
}

int close_now(int descriptor) {
  static const auto next_close = inflight::next_function<int(int)>("close");
  return next_close(descriptor);
}

// The messages that wait for room in one socket. They are sent through a duplicate of its descriptor, so that they
// cannot reach whoever has its number after it was closed.
class Channel {
 public:
  ~Channel() {
    if (duplicate_ >= 0) close_now(duplicate_);
  }

  bool is_empty() const {
    std::lock_guard lock(mutex_);
    return messages_.empty();
  }

  // False, with errno, where there is no descriptor left for the duplicate, or too much is kept already.
  bool keep(int socket, std::string message) {
    std::lock_guard lock(mutex_);
    if (duplicate_ < 0) duplicate_ = fcntl(socket, F_DUPFD_CLOEXEC, 0);
    if (duplicate_ < 0) return false;
    if (messages_.size() == inflight::kMaxKeptMessages) {
      if (!has_warned_) std::fprintf(stderr, "inflight: a thread of the HTTP front end does not read its callbacks\n");
      has_warned_ = true;
      errno = EAGAIN;
      return false;
    }
    messages_.push_back(std::move(message));
    return true;
  }

  // -1 unless messages wait.
  int waiting_descriptor() const {
    std::lock_guard lock(mutex_);
    return messages_.empty() ? -1 : duplicate_;
  }

  // Sends as many messages as there is room for, one at a time: a message that is sent past the queue meanwhile must
  // not come to stand inside another. For one thread only, which holds no lock while it sends.
  void flush() {
    for (std::string* message = front(); message != nullptr; message = front()) {
      const ssize_t sent = send_now(duplicate_, message->data(), message->size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && errno == EAGAIN) return;
      std::lock_guard lock(mutex_);
      if (sent < 0) {
        messages_.clear();  // nobody reads them any more
      } else if (static_cast<size_t>(sent) < message->size()) {
        message->erase(0, sent);
      } else {
        messages_.pop_front();
      }
    }
  }

 private:
  std::string* front() {
    std::lock_guard lock(mutex_);
    return messages_.empty() ? nullptr : &messages_.front();  // stays where it is while others are added
  }

  mutable std::mutex mutex_;
  std::deque<std::string> messages_;
  int duplicate_ = -1;
  bool has_warned_ = false;
};

// The open channels, by descriptor, and the thread that sends what waits in them.
class Channels {
 public:
  void add(int descriptor) {
    if (descriptor >= kMaxDescriptors) return;
    std::lock_guard lock(mutex_);
    channels_[descriptor] = std::make_shared<Channel>();
    is_channel_[descriptor] = true;
  }

  // Before the descriptor is closed. A child that Triton forks closes its own copies: there, locks may be held for
  // ever.
  void remove(int descriptor) {
    if (!has(descriptor) || getpid() != process_) return;
    std::lock_guard lock(mutex_);
    is_channel_[descriptor] = false;
    channels_.erase(descriptor);
  }

  bool has(int descriptor) const {
    return descriptor >= 0 && descriptor < kMaxDescriptors && is_channel_[descriptor].load(std::memory_order_relaxed);
  }

  // Messages stay in the order in which they were sent one after the other.
  ssize_t send(int descriptor, const void* data, size_t size, int flags) {
    const auto channel = find(descriptor);
    if (channel == nullptr) return send_now(descriptor, data, size, flags);
    if (channel->is_empty()) {
      const ssize_t sent = send_now(descriptor, data, size, flags);
      if (sent >= 0 || errno != EAGAIN) return sent;
    }
    if (!channel->keep(descriptor, std::string(static_cast<const char*>(data), size))) return -1;
    start_thread();
    return static_cast<ssize_t>(size);
  }

 private:
  std::shared_ptr<Channel> find(int descriptor) {
    std::lock_guard lock(mutex_);
    const auto found = channels_.find(descriptor);
    return found == channels_.end() ? nullptr : found->second;
  }

  void start_thread() {
    std::lock_guard lock(mutex_);
    if (!has_thread_) std::thread([this] { run(); }).detach();
    has_thread_ = true;
    is_filled_ = true;
    filled_.notify_one();
  }

  void run() {
    while (true) {
      std::vector<std::shared_ptr<Channel>> waiting;
      std::vector<pollfd> sockets;
      {
        std::unique_lock lock(mutex_);
        filled_.wait(lock, [this] { return is_filled_; });
        for (const auto& [descriptor, channel] : channels_) {
          const int duplicate = channel->waiting_descriptor();
          if (duplicate < 0) continue;
          waiting.push_back(channel);
          sockets.push_back({duplicate, POLLOUT, 0});
        }
        is_filled_ = !waiting.empty();
      }
      if (poll(sockets.data(), sockets.size(), kPollMs) <= 0) continue;
      for (size_t i = 0; i < sockets.size(); ++i) {
        if (sockets[i].revents != 0) waiting[i]->flush();
      }
    }
  }

  const pid_t process_ = getpid();
  std::array<std::atomic<bool>, kMaxDescriptors> is_channel_{};
  std::mutex mutex_;
  std::condition_variable filled_;
  std::map<int, std::shared_ptr<Channel>> channels_;
  bool is_filled_ = false;  // messages may wait
  bool has_thread_ = false;
};

Channels& channels() {
  static Channels& channels = *new Channels;  // outlives the threads that send while the process exits
  return channels;
}

}  // namespace

#define INFLIGHT_INTERPOSE extern "C" __attribute__((visibility("default")))

INFLIGHT_INTERPOSE int socketpair(int domain, int type, int protocol, int descriptors[2]) noexcept {
  static const auto next_socketpair = inflight::next_function<int(int, int, int, int[2])>("socketpair");
  const int status = next_socketpair(domain, type, protocol, descriptors);
  constexpr int kFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (status != 0 || domain != AF_UNIX || (type & ~kFlags) != SOCK_STREAM) return status;
  if (!inflight::is_in_executable(__builtin_return_address(0))) return status;
  try {
    channels().add(descriptors[0]);
    channels().add(descriptors[1]);
  } catch (const std::exception&) {  // no memory: it is a socket like any other
  }
  return status;
}

INFLIGHT_INTERPOSE int close(int descriptor) {
  channels().remove(descriptor);
  return close_now(descriptor);
}

INFLIGHT_INTERPOSE ssize_t send(int socket, const void* data, size_t size, int flags) {
  if (size <= 1 || !channels().has(socket)) return send_now(socket, data, size, flags);
  try {
    return channels().send(socket, data, size, flags);
  } catch (const std::exception&) {
    errno = EAGAIN;
    return -1;
  }
}
