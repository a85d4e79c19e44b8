#include "net/socket.hpp"

#include <netinet/tcp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "net/fork_guard.hpp"

namespace pccl::net {
namespace {

constexpr Duration near_rtt_max = 2 * millisecond;

bool set(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

Error failed(const std::string& what, int code) {
  return {ErrorCode::connect, what + ": " + errno_text(code)};
}

// Best effort: none of these can fail for a TCP socket, and one that does costs speed or early notice only.
void set_options(const Socket& socket, const SocketOptions& options) {
  const int fd = socket.fd();
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  const auto unacked_ms = std::clamp<Duration>(options.unacked_max / millisecond, 1, INT32_MAX);
  set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(unacked_ms));
  // Idle streams have no unacknowledged data: the probes notice a host that vanished.
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 5);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 2);
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, 5);
  set_congestion(socket, options.congestion, options.path);
}

Result<Socket> open_socket(const SocketAddress& address) {
  Socket socket(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return failed("cannot open a socket for " + address.text(), errno);
  return socket;
}

bool try_congestion(int fd, std::string_view name) {
  return ::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name.data(), static_cast<socklen_t>(name.size())) == 0;
}

// Errors of a connection that died before it was accepted: the next one may be fine.
bool concerns_one_connection(int code) {
  constexpr std::array codes = {ECONNABORTED, EPROTO,     EPERM,        ENETDOWN,    ENOPROTOOPT, EHOSTDOWN,
                                ENONET,       EOPNOTSUPP, EHOSTUNREACH, ENETUNREACH, EINTR};
  return std::ranges::find(codes, code) != codes.end();
}

}  // namespace

Socket::Socket(int fd) : fd_(fd) { guard_from_fork(fd); }

void Socket::close() {
  if (fd_ < 0) return;
  // First: the number may be in use again the moment it is closed.
  if (unguard(fd_)) ::close(fd_);
  fd_ = -1;
}

bool is_near(const Path& path) { return path.same_host || path.rtt < near_rtt_max; }

std::string errno_text(int code) { return std::generic_category().message(code); }

Result<Socket> listen_on(const SocketAddress& address, int backlog, const SocketOptions& options) {
  auto opened = open_socket(address);
  if (!opened) return opened;
  const int fd = opened->fd();
  set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (address.family() == AF_INET6) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, address.is_any() ? 0 : 1);
  set_options(*opened, options);
  if (::bind(fd, address.data(), address.size()) != 0 || ::listen(fd, backlog) != 0)
    return failed("cannot listen on " + address.text(), errno);
  return opened;
}

Result<std::optional<Accepted>> accept_from(const Socket& listener, const SocketOptions& options) {
  for (;;) {
    sockaddr_storage storage{};
    socklen_t bytes = sizeof storage;
    auto* from = reinterpret_cast<sockaddr*>(&storage);
    Socket socket(::accept4(listener.fd(), from, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
      Accepted accepted{std::move(socket), SocketAddress(from, bytes)};
      SocketOptions known = options;
      if (options.path.rtt == never) known.path = path_of(accepted.socket);
      set_options(accepted.socket, known);
      return std::optional(std::move(accepted));
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return std::optional<Accepted>();
    if (!concerns_one_connection(errno)) return failed("cannot accept a connection", errno);
  }
}

Result<Socket> start_connect(const SocketAddress& address, const SocketOptions& options) {
  auto opened = open_socket(address);
  if (!opened) return opened;
  SocketOptions known = options;
  known.path.same_host = known.path.same_host || address.is_loopback();
  set_options(*opened, known);
  if (::connect(opened->fd(), address.data(), address.size()) != 0 && errno != EINPROGRESS && errno != EINTR)
    return failed("cannot connect to " + address.text(), errno);
  return opened;
}

int connect_result(const Socket& socket) {
  int code = 0;
  socklen_t bytes = sizeof code;
  return ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &code, &bytes) == 0 ? code : errno;
}

Path path_of(const Socket& socket) {
  Path path;
  const auto remote = remote_address(socket.fd());
  path.same_host =
      remote.is_loopback() || (remote.family() != 0 && remote.same_host(local_address(socket.fd())));
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (::getsockopt(socket.fd(), IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 && info.tcpi_rtt != 0)
    path.rtt = info.tcpi_rtt * microsecond;
  return path;
}

void set_congestion(const Socket& socket, std::string_view choice, const Path& path) {
  if (choice == "system") return;
  if (choice != "auto") {
    try_congestion(socket.fd(), choice);
  } else if (is_near(path)) {
    if (!try_congestion(socket.fd(), "cubic")) try_congestion(socket.fd(), "reno");
  } else {
    try_congestion(socket.fd(), "bbr");
  }
}

Error check_congestion(std::string_view choice) {
  if (choice == "auto" || choice == "system") return {};
  const Socket probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!probe || try_congestion(probe.fd(), choice) || (errno != ENOENT && errno != EINVAL)) return {};
  std::string available;
  std::ifstream list("/proc/sys/net/ipv4/tcp_available_congestion_control");
  for (std::string name; list >> name;) available += ", " + name;
  return {ErrorCode::usage, "congestion_control=" + std::string(choice) +
                                ": the kernel has no such algorithm; choose auto, system" + available};
}

void set_buffers(const Socket& socket, const Path& path) {
  if (!path.same_host) return;
  constexpr int bytes = 512 << 10;  // of payload; the kernel doubles it for its own needs
  ::setsockopt(socket.fd(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  ::setsockopt(socket.fd(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

std::string congestion_of(const Socket& socket) {
  std::array<char, 32> name{};
  auto bytes = static_cast<socklen_t>(name.size() - 1);
  if (::getsockopt(socket.fd(), IPPROTO_TCP, TCP_CONGESTION, name.data(), &bytes) != 0) return {};
  return name.data();
}

}  // namespace pccl::net
