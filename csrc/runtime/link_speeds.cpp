#include "runtime/link_speeds.hpp"

#include <algorithm>

#include "net/tcp_state.hpp"

namespace pccl {

namespace {

// Less tells more about the kernel's buffers than about the link.
constexpr Duration time_min = 20 * millisecond;
constexpr std::uint64_t bytes_min = 256u << 10;

struct Sum {
  std::uint64_t bytes = 0;
  Duration time = 0;  // of the stripe that was full for the longest time
};

std::uint32_t microseconds(Duration rtt) {
  return rtt == never ? 0 : std::uint32_t(std::clamp<Duration>(rtt / microsecond, 1, UINT32_MAX));
}

}  // namespace

std::vector<MeasuredLink> take_speeds(Links& links) {
  std::map<PeerId, Sum> sums;
  links.each_stripe([&](PeerId peer, net::Connection& stripe) {
    const auto& reading = stripe.send_meter().reading();
    if (reading.time == 0) return;
    auto& sum = sums[peer];
    sum.bytes += reading.bytes;
    sum.time = std::max(sum.time, reading.time);
  });
  std::erase_if(sums, [](const auto& s) { return s.second.time < time_min || s.second.bytes < bytes_min; });
  const auto evidence = sums.size() > 1 ? Evidence::at_least : Evidence::transfer;
  std::vector<MeasuredLink> measured;
  for (const auto& [peer, sum] : sums)
    measured.push_back({peer, std::uint64_t(double(sum.bytes) * double(second) / double(sum.time)),
                        round_trip_us(links, peer), evidence});
  links.each_stripe([&](PeerId peer, net::Connection& stripe) {
    if (sums.contains(peer)) stripe.send_meter().forget();
  });
  return measured;
}

std::uint32_t round_trip_us(Links& links, PeerId peer) {
  auto least = never;
  links.each_stripe([&](PeerId to, net::Connection& stripe) {
    if (to == peer) least = std::min(least, net::tcp_state(stripe.socket()).rtt_min);
  });
  return microseconds(least);
}

void forget_speeds(Links& links) {
  links.each_stripe([](PeerId, net::Connection& stripe) { stripe.send_meter().forget(); });
}

}  // namespace pccl
