// Preloaded into tritonserver by the launcher: a send() that waits where Triton would lose a response.
//
// Triton's HTTP front end passes response callbacks to its threads through non-blocking Unix socket pairs and ignores
// the error when one is full (evthr_defer of libevhtp, at about 270 pending callbacks): the callback is lost and its
// stream never ends. Here the sender waits for room instead, which also holds back whoever produces responses faster
// than the front end takes them. Other sockets, and one-byte messages (libevent's wake-ups), are left alone.

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

namespace {

using Send = ssize_t (*)(int, const void*, size_t, int);

// A thread that waits for itself gives up after this long: the callback is lost then, as it would be without us.
constexpr int kTimeoutMs = 10000;

bool is_unix_socket(int socket) {
  int domain = 0;
  socklen_t size = sizeof domain;
  return getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

bool wait_for_room(int socket) {
  pollfd writable{socket, POLLOUT, 0};
  int ready;
  do {
    ready = poll(&writable, 1, kTimeoutMs);
  } while (ready < 0 && errno == EINTR);
  return ready == 1;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) ssize_t send(int socket, const void* data, size_t size, int flags) {
  static const auto next_send = reinterpret_cast<Send>(dlsym(RTLD_NEXT, "send"));
  ssize_t sent = next_send(socket, data, size, flags);
  while (sent < 0 && errno == EAGAIN && size > 1 && (flags & MSG_DONTWAIT) == 0 && is_unix_socket(socket)) {
    if (!wait_for_room(socket)) {
      errno = EAGAIN;
      return -1;
    }
    sent = next_send(socket, data, size, flags);
  }
  return sent;
}
