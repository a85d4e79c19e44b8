// Waiting for many descriptors at once (level-triggered), and being woken up by other threads.
#pragma once
#include <sys/epoll.h>

#include <atomic>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "net/socket.hpp"

namespace pccl::net {

struct Interest {
  bool read = false;
  bool write = false;
  bool operator==(const Interest&) const = default;
};

struct Event {
  std::uint64_t token = 0;
  bool readable =
      false;  // both are true after an error or a hang-up, whatever was asked for: reading tells which
  bool writable = false;
};

// Owned by one thread. A token should never be used again: one wait() may still hold an event of a descriptor
// that was removed while its other events were handled.
class Poller {
 public:
  static Result<Poller> create();

  Error add(int fd, std::uint64_t token, Interest interest);
  Error modify(int fd, std::uint64_t token, Interest interest);
  void remove(int fd);  // before the descriptor is closed: a forked child may keep it alive
  // Until something happens, at most `timeout` (never: no limit), in steps of a millisecond, rounded up. The
  // events live until the next call.
  std::span<const Event> wait(Duration timeout);

 private:
  static constexpr std::size_t events_max = 256;
  explicit Poller(Socket epoll) : epoll_(std::move(epoll)) {}
  Error control(int operation, int fd, std::uint64_t token, Interest interest);

  Socket epoll_;  // only its ownership of a descriptor is used
  std::vector<epoll_event> raw_ = std::vector<epoll_event>(events_max);
  std::vector<Event> events_ = std::vector<Event>(events_max);
};

// signal() is for any thread; the rest for the owner, who polls fd() for reading, and on that calls drain()
// *before* it looks at what the signal is about.
class Waker {
 public:
  static Result<Waker> create();
  Waker(Waker&& other) noexcept : eventfd_(std::move(other.eventfd_)) {}

  int fd() const { return eventfd_.fd(); }
  void signal();
  void drain();

 private:
  explicit Waker(Socket eventfd) : eventfd_(std::move(eventfd)) {}
  Socket eventfd_;
  std::atomic<bool> signalled_{false};  // spares the system call while the owner has not looked yet
};

}  // namespace pccl::net
