#include "net/tcp_state.hpp"

#include <dirent.h>
#include <linux/tcp.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>

namespace pccl::net {

TcpState tcp_state(const Socket& socket) {
  TcpState state;
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (::getsockopt(socket.fd(), IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) return state;
  if (info.tcpi_rtt != 0) state.rtt = info.tcpi_rtt * microsecond;
  if (info.tcpi_min_rtt != 0 && info.tcpi_min_rtt != UINT32_MAX)
    state.rtt_min = info.tcpi_min_rtt * microsecond;
  state.delivery_rate = info.tcpi_delivery_rate;
  state.acked = info.tcpi_bytes_acked;
  state.delivered = std::uint64_t{info.tcpi_delivered} * info.tcpi_snd_mss;
  state.segments = info.tcpi_data_segs_out;
  state.segments_again = info.tcpi_total_retrans;
  return state;
}

void keep_unsent_low(const Socket& socket) {
  constexpr int bytes = 64 << 10;
  ::setsockopt(socket.fd(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
}

void limit_rate(const Socket& socket, std::uint64_t bytes_per_second) {
  const auto rate = std::max(bytes_per_second, rate_least);
  ::setsockopt(socket.fd(), SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof rate);
}

std::size_t descriptors_limit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<std::size_t>(limit.rlim_cur) : 0;
}

Descriptors descriptors() {
  Descriptors all;
  all.limit = descriptors_limit();
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc/self/fd"), &::closedir);
  if (directory == nullptr) return {all.limit, all.limit};  // none left, or nobody can tell
  while (const auto* entry = ::readdir(directory.get())) all.open += entry->d_name[0] != '.' ? 1 : 0;
  return all;
}

}  // namespace pccl::net
