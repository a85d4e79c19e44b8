// A TCP proxy in front of a peer: forwards each connection by itself, and does to it what networks do.
// Connections are numbered as they come, from 0. Any thread may call; one thread of its own forwards.
#pragma once
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.hpp"

namespace pccl::testing {

inline int bound_socket(std::uint16_t& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  socklen_t bytes = sizeof address;
  const int one = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), bytes) != 0) return -1;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &bytes);
  port = ntohs(address.sin_port);
  return fd;
}

inline std::uint16_t free_port() {
  std::uint16_t port = 0;
  ::close(bound_socket(port));
  return port;
}

class Proxy {
 public:
  enum class Way : std::uint8_t { to_peer, from_peer };
  // Told before each piece is forwarded: connection, way, the bytes, which it may change, and how many went
  // before on that connection and way. On the proxy's thread. False: the connection is reset instead.
  using Look = std::function<bool(std::size_t, Way, std::uint8_t*, std::size_t, std::uint64_t)>;

  explicit Proxy(std::uint16_t target, Look look = {}) : target_(target), look_(std::move(look)) {
    listener_ = bound_socket(port_);
    ::listen(listener_, 64);
    thread_ = std::thread([this] { run(); });
  }
  Proxy(const Proxy&) = delete;
  ~Proxy() {
    stop_ = true;
    thread_.join();
    for (auto& pair : pairs_) pair->close(false);
    ::close(listener_);
  }

  std::uint16_t port() const { return port_; }
  std::size_t connections() const {
    const std::lock_guard lock(mutex_);
    return pairs_.size();
  }
  // Both ends are told by a reset, or by a polite end of the stream.
  void kill(std::size_t connection, bool reset = true) {
    const std::lock_guard lock(mutex_);
    if (connection < pairs_.size()) pairs_[connection]->close(reset);
  }
  void silence(std::size_t connection, Way way, bool silent) {
    const std::lock_guard lock(mutex_);
    if (connection < pairs_.size()) pairs_[connection]->silent[std::size_t(way)] = silent;
  }
  std::vector<std::size_t> alive() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::size_t> all;
    for (std::size_t i = 0; i < pairs_.size(); ++i)
      if (pairs_[i]->fds[0] >= 0) all.push_back(i);
    return all;
  }

 private:
  struct Pair {
    std::array<int, 2> fds{-1, -1};                    // the one who dialled, the peer
    std::array<std::vector<std::uint8_t>, 2> pending;  // by way
    std::array<std::uint64_t, 2> forwarded{};
    std::array<std::atomic<bool>, 2> silent{};
    void close(bool reset) {
      for (auto& fd : fds) {
        if (fd < 0) continue;
        const linger hard{1, 0};
        if (reset) ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        ::close(std::exchange(fd, -1));
      }
    }
  };

  void run() {
    while (!stop_) {
      std::vector<pollfd> fds{{listener_, POLLIN, 0}};
      {
        const std::lock_guard lock(mutex_);
        for (auto& pair : pairs_)
          for (std::size_t way = 0; way < 2; ++way) add(*pair, way, fds);
      }
      ::poll(fds.data(), fds.size(), 5);
      const std::lock_guard lock(mutex_);
      if (fds[0].revents != 0) accept();
      for (std::size_t i = 0; i < pairs_.size(); ++i)
        for (std::size_t way = 0; way < 2; ++way) forward(i, way);
    }
  }
  void add(Pair& pair, std::size_t way, std::vector<pollfd>& fds) {
    if (pair.fds[0] < 0 || pair.silent[way]) return;
    if (pair.pending[way].empty())
      fds.push_back({pair.fds[way], POLLIN, 0});
    else
      fds.push_back({pair.fds[1 - way], POLLOUT, 0});
  }
  void accept() {
    const int from = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (from < 0) return;
    auto pair = std::make_unique<Pair>();
    pair->fds = {from, ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(target_);
    const int one = 1;
    for (const int fd : pair->fds) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (::connect(pair->fds[1], reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      pair->close(true);
    pairs_.push_back(std::move(pair));
  }
  void forward(std::size_t index, std::size_t way) {
    auto& pair = *pairs_[index];
    if (pair.fds[0] < 0 || pair.silent[way]) return;
    auto& pending = pair.pending[way];
    if (pending.empty()) {
      pending.resize(64u << 10);
      const auto got = ::recv(pair.fds[way], pending.data(), pending.size(), MSG_DONTWAIT);
      pending.resize(got > 0 ? std::size_t(got) : 0);
      if (got == 0 || (got < 0 && errno != EAGAIN)) return pair.close(got < 0);
      if (pending.empty()) return;
      if (look_ && !look_(index, Way(way), pending.data(), pending.size(), pair.forwarded[way]))
        return pair.close(true);
      pair.forwarded[way] += pending.size();
    }
    const auto sent = ::send(pair.fds[1 - way], pending.data(), pending.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return pair.close(true);
    if (sent > 0) pending.erase(pending.begin(), pending.begin() + sent);
  }

  std::uint16_t target_, port_ = 0;
  Look look_;
  int listener_ = -1;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;  // guards pairs_
  std::vector<std::unique_ptr<Pair>> pairs_;
  std::thread thread_;
};

}  // namespace pccl::testing
