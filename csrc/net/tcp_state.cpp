#include "net/tcp_state.hpp"

#include <dirent.h>
#include <linux/tcp.h>
#include <sys/resource.h>

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
  return state;
}

void keep_unsent_low(const Socket& socket) {
  constexpr int bytes = 128 << 10;
  ::setsockopt(socket.fd(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
}

Descriptors descriptors() {
  rlimit limit{};
  Descriptors all;
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) all.limit = static_cast<std::size_t>(limit.rlim_cur);
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc/self/fd"), &::closedir);
  if (directory == nullptr) return {all.limit, all.limit};  // none left, or nobody can tell
  while (const auto* entry = ::readdir(directory.get())) all.open += entry->d_name[0] != '.' ? 1 : 0;
  return all;
}

}  // namespace pccl::net
