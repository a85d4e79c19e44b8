#include "runtime/link_speeds.hpp"

#include <algorithm>

#include "net/tcp_state.hpp"

namespace pccl {

namespace {

// Less tells more about the kernel's buffers than about the link.
constexpr Duration time_min = 20 * millisecond;
constexpr std::uint64_t bytes_min = 256u << 10;

bool enough(const SendMeter& meter) {
  return meter.reading().time >= time_min && meter.reading().bytes >= bytes_min;
}

}  // namespace

std::uint32_t round_trip_us(Links& links, PeerId peer) {
  auto least = never;
  links.each_stripe([&](PeerId to, net::Connection& stripe) {
    if (to == peer) least = std::min(least, net::tcp_state(stripe.socket()).rtt_min);
  });
  return least == never ? 0 : std::uint32_t(std::clamp<Duration>(least / microsecond, 1, UINT32_MAX));
}

bool LinkSpeeds::due(PeerId peer, Instant now) const {
  const auto it = meters_.find(peer);
  return it == meters_.end() || it->second.due(now);
}

void LinkSpeeds::full(PeerId peer, Instant now) {
  std::uint64_t confirmed = 0;
  links_.each_stripe([&](PeerId to, net::Connection& stripe) {
    if (to == peer) confirmed += net::tcp_state(stripe.socket()).acked;
  });
  meters_[peer].full(now, confirmed);
}

void LinkSpeeds::ran_dry(PeerId peer) {
  const auto it = meters_.find(peer);
  if (it != meters_.end() && it->second.running() && !it->second.dry()) it->second.ran_dry(monotonic_now());
}

void LinkSpeeds::sends(PeerId peer) {
  const auto it = meters_.find(peer);
  if (it != meters_.end() && it->second.dry()) it->second.refilled(monotonic_now());
}

std::vector<MeasuredLink> LinkSpeeds::take() {
  const auto full = std::ranges::count_if(meters_, [](const auto& m) { return enough(m.second); });
  std::vector<MeasuredLink> measured;
  for (auto& [peer, meter] : meters_) {
    if (!enough(meter)) continue;
    const auto& [bytes, time] = meter.reading();
    const auto speed = std::uint64_t(double(bytes) * double(second) / double(time));
    measured.push_back(
        {peer, speed, round_trip_us(links_, peer), full > 1 ? Evidence::at_least : Evidence::transfer});
    meter.forget();
  }
  return measured;
}

}  // namespace pccl
