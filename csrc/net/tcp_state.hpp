// What the kernel knows of a TCP stream: round trips, what is under way, how fast it is delivered. Any
// thread.
#pragma once
#include "net/socket.hpp"

namespace pccl::net {

struct TcpState {
  Duration rtt = never, rtt_min = never;           // never: not measured
  std::uint64_t delivery_rate = 0;                 // bytes per second
  std::uint64_t acked = 0;                         // bytes since it was opened, without a gap
  std::uint64_t delivered = 0;                     // bytes, about: also those behind a gap
  std::uint64_t segments = 0, segments_again = 0;  // sent with data, and those of them sent again
};
TcpState tcp_state(const Socket& socket);

// Where round trips are long, what waits inside the kernel is stuck to its stream: keep it little, so that
// chunks go where there is room.
void keep_unsent_low(const Socket& socket);

// Bytes per second that the kernel sends at most on this stream, spread evenly. Less than `rate_least` would
// stop it.
inline constexpr std::uint64_t rate_least = 64 << 10;
void limit_rate(const Socket& socket, std::uint64_t bytes_per_second);

// Descriptors of this process: how many there may be, and are.
struct Descriptors {
  std::size_t limit = 0, open = 0;
};
Descriptors descriptors();
std::size_t descriptors_limit();

}  // namespace pccl::net
