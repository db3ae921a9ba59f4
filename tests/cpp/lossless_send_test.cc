#include "triton/preload/lossless_send.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <thread>
#include <vector>

#include "check.h"

namespace {

// As Triton's, 17 bytes: who sent it, and how many it had sent before.
struct __attribute__((packed)) Message {
  int32_t sender;
  int32_t number;
  char rest[9];
};

struct Pair {
  explicit Pair(int type = SOCK_STREAM | SOCK_NONBLOCK) {
    CHECK(socketpair(AF_UNIX, type, 0, descriptors.data()) == 0);
  }
  ~Pair() {
    for (const int descriptor : descriptors) {
      if (descriptor >= 0) close(descriptor);
    }
  }
  int writer() const { return descriptors[0]; }
  int reader() const { return descriptors[1]; }
  void close_writer() {
    close(descriptors[0]);
    descriptors[0] = -1;
  }

  std::array<int, 2> descriptors;
};

bool send_message(int socket, int32_t sender, int32_t number) {
  const Message message{sender, number, {}};
  return send(socket, &message, sizeof message, 0) == sizeof message;
}

// How many could be sent before the first that could not.
int32_t send_until_full(int socket) {
  int32_t count = 0;
  while (send_message(socket, 0, count)) ++count;
  CHECK(errno == EAGAIN);
  return count;
}

// The next message; waits for it also where the socket does not.
Message receive(int socket) {
  Message message;
  size_t size = 0;
  while (size < sizeof message) {
    const ssize_t received = recv(socket, reinterpret_cast<char*>(&message) + size, sizeof message - size, 0);
    if (received < 0) {
      CHECK(errno == EAGAIN);
      std::this_thread::yield();
      continue;
    }
    CHECK(received > 0);
    size += received;
  }
  return message;
}

TEST(all_that_overflows_arrives_in_each_senders_order) {
  constexpr int32_t kSenders = 4, kMessages = 5000;
  const Pair pair;
  std::vector<std::thread> senders;
  for (int32_t sender = 0; sender < kSenders; ++sender) {
    senders.emplace_back([&pair, sender] {
      for (int32_t number = 0; number < kMessages; ++number) CHECK(send_message(pair.writer(), sender, number));
    });
  }
  std::array<int32_t, kSenders> next{};
  for (int32_t i = 0; i < kSenders * kMessages / 2; ++i) {
    const Message message = receive(pair.reader());
    CHECK(message.number == next.at(message.sender)++);
  }
  for (std::thread& sender : senders) sender.join();
  for (int32_t i = 0; i < kSenders * kMessages / 2; ++i) {
    const Message message = receive(pair.reader());
    CHECK(message.number == next.at(message.sender)++);
  }
}

TEST(no_more_than_the_limit_is_kept) {
  const Pair pair;
  const int32_t sent = send_until_full(pair.writer());
  CHECK(sent > static_cast<int32_t>(inflight::kMaxKeptMessages));
  for (int32_t number = 0; number < sent; ++number) CHECK(receive(pair.reader()).number == number);
  CHECK(send_message(pair.writer(), 0, sent));
  CHECK(receive(pair.reader()).number == sent);
}

TEST(what_was_kept_for_a_closed_socket_never_reaches_the_next_with_its_number) {
  Pair old;
  const int number = old.writer();
  for (int32_t i = 0; i < 1000; ++i) CHECK(send_message(old.writer(), 1, i));
  old.close_writer();
  const Pair next;
  CHECK(next.writer() == number);
  CHECK(send_message(next.writer(), 2, 0));
  for (char byte; true;) {  // to the end of the old one
    const ssize_t received = recv(old.reader(), &byte, 1, 0);
    if (received == 0) break;
    CHECK(received == 1 || errno == EAGAIN);
  }
  CHECK(receive(next.reader()).sender == 2);
  Message none;
  CHECK(recv(next.reader(), &none, sizeof none, 0) < 0 && errno == EAGAIN);
}

TEST(a_socket_whose_sender_waits_keeps_no_other_waiting) {
  const Pair waiting(SOCK_STREAM), other;
  std::thread sender([&] {
    for (int32_t number = 0; number < 1000; ++number) CHECK(send_message(waiting.writer(), 0, number));
  });
  for (int32_t number = 0; number < 1000; ++number) CHECK(send_message(other.writer(), 0, number));
  for (int32_t number = 0; number < 1000; ++number) CHECK(receive(other.reader()).number == number);
  for (int32_t number = 0; number < 1000; ++number) CHECK(receive(waiting.reader()).number == number);
  sender.join();
}

TEST(other_sockets_are_left_alone) {
  const Pair datagrams(SOCK_DGRAM | SOCK_NONBLOCK);
  CHECK(send_until_full(datagrams.writer()) < 10000);
  // A library's: the function that it finds is this one, but it calls it from elsewhere.
  std::array<int, 2> descriptors;
  const auto next = reinterpret_cast<int (*)(int, int, int, int*)>(dlsym(RTLD_NEXT, "socketpair"));
  CHECK(next(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, descriptors.data()) == 0);
  CHECK(send_until_full(descriptors[0]) < 10000);
  for (const int descriptor : descriptors) close(descriptor);
}

TEST(wake_ups_of_one_byte_are_not_kept) {
  const Pair pair;
  int count = 0;
  while (send(pair.writer(), "", 1, 0) == 1) ++count;
  CHECK(errno == EAGAIN && count < 10000);
}

}  // namespace

TEST_MAIN()
