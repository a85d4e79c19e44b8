#include "net/poller.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace pccl::net {
namespace {

Error failed(const char* what) { return {ErrorCode::internal, std::string(what) + ": " + errno_text(errno)}; }

int timeout_ms(Duration timeout) {
  if (timeout == never) return -1;
  if (timeout <= 0) return 0;
  return static_cast<int>(std::min<Duration>((timeout - 1) / millisecond + 1, 1 << 30));
}

}  // namespace

Result<Poller> Poller::create() {
  Socket epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return failed("cannot create an epoll descriptor");
  return Poller(std::move(epoll));
}

Error Poller::control(int operation, int fd, std::uint64_t token, Interest interest) {
  epoll_event event{};
  event.events = (interest.read ? EPOLLIN : 0u) | (interest.write ? EPOLLOUT : 0u);
  event.data.u64 = token;
  if (::epoll_ctl(epoll_.fd(), operation, fd, &event) == 0) return {};
  return failed("cannot poll a descriptor");
}

Error Poller::add(int fd, std::uint64_t token, Interest interest) {
  return control(EPOLL_CTL_ADD, fd, token, interest);
}

Error Poller::modify(int fd, std::uint64_t token, Interest interest) {
  return control(EPOLL_CTL_MOD, fd, token, interest);
}

void Poller::remove(int fd) {
  epoll_event ignored{};
  ::epoll_ctl(epoll_.fd(), EPOLL_CTL_DEL, fd, &ignored);
}

std::span<const Event> Poller::wait(Duration timeout) {
  const int count =
      ::epoll_wait(epoll_.fd(), raw_.data(), static_cast<int>(raw_.size()), timeout_ms(timeout));
  if (count <= 0) return {};  // interrupted by a signal: the caller's loop comes back
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const auto what = raw_[i].events;
    const bool broken = (what & (EPOLLERR | EPOLLHUP)) != 0;
    events_[i] = {raw_[i].data.u64, broken || (what & EPOLLIN) != 0, broken || (what & EPOLLOUT) != 0};
  }
  return {events_.data(), static_cast<std::size_t>(count)};
}

Result<Waker> Waker::create() {
  Socket eventfd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!eventfd) return failed("cannot create an eventfd");
  return Waker(std::move(eventfd));
}

void Waker::signal() {
  if (signalled_.exchange(true)) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written =
      ::write(fd(), &one, sizeof one);  // fails only when it is signalled anyway
}

void Waker::drain() {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(fd(), &count, sizeof count);
  // An exchange, not a store: it makes what a skipped signal() published visible here.
  signalled_.exchange(false);
}

}  // namespace pccl::net
