// TCP sockets: non-blocking, closed on exec, and with buffers of a fixed size only where both ends are
// on one host (elsewhere that would switch off the kernel's tuning). No state but the descriptor; each is
// used by one thread at a time.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "net/address.hpp"

namespace pccl::net {

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd);  // owns it; a forked child closes it at once (fork_guard.hpp)
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket() { close(); }

  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

// What is known of the way to the other side. The defaults: nothing.
struct Path {
  bool same_host = false;
  Duration rtt = never;
};

bool is_near(const Path& path);  // on this host, or a round trip below 2 ms

struct SocketOptions {
  std::string congestion = "auto";  // auto, reno, cubic, bbr, or system (leave it alone)
  Path path;                        // what "auto" decides by
  // TCP_USER_TIMEOUT: sent data that nobody confirms for so long ends the connection. So does a receiver that
  // is alive and does not read for so long: nobody may pause longer than this.
  Duration unacked_max = 20 * second;
};

std::string errno_text(int code);

// All options are set before listen() or connect(), where the handshake still sees them. An IPv6 wildcard
// also serves IPv4.
Result<Socket> listen_on(const SocketAddress& address, int backlog, const SocketOptions& options = {});

struct Accepted {
  Socket socket;
  SocketAddress from;
};
// Nothing: nobody waits. An error (too many open files, no memory): nobody can be accepted for now, and the
// poller goes on reporting the listener, so stop polling it for a while.
Result<std::optional<Accepted>> accept_from(const Socket& listener, const SocketOptions& options = {});

// The socket becomes writable when connect_result() can be asked. A refusal that is known at once (loopback)
// is told there as well; here: only no socket, no route, or nonsense.
Result<Socket> start_connect(const SocketAddress& address, const SocketOptions& options = {});
// 0: connected, or still on the way. Else errno (once: reading it clears it).
int connect_result(const Socket& socket);

// The path of a connected socket, as the kernel has measured it so far.
Path path_of(const Socket& socket);

// Tries what `choice` stands for and silently takes what it can get. auto: cubic, else reno where the round
// trip is below 2 ms or stays on this host (bbr halves the speed there); bbr elsewhere (one lossy stream
// gains 30 times).
void set_congestion(const Socket& socket, std::string_view choice, const Path& path);
// An error where the kernel has no such algorithm; one that exists and is not allowed here is fine.
Error check_congestion(std::string_view choice);
// On this host: what fits the caches beside the chunk that is worked on, and no more (measured: 64 MiB
// between 4 peers takes 15 % less time than with what the kernel grows them to). Elsewhere its tuning knows
// better.
void set_buffers(const Socket& socket, const Path& path);
std::string congestion_of(const Socket& socket);  // the one in use; empty where it has none

}  // namespace pccl::net
