#include "runtime/prober.hpp"

#include <algorithm>
#include <array>

#include "net/tcp_state.hpp"
#include "runtime/link_speeds.hpp"

namespace pccl {

namespace {
constexpr std::size_t payload_bytes = 128u << 10;
// On each stripe: what a fast link takes while this thread does something else.
constexpr std::uint64_t queued_bytes = 1u << 20;
constexpr Duration look_every = 5 * millisecond;
// The next measurement, of another link, must not share the line with the rest of this one.
constexpr Duration drain_most = second;
constexpr std::uint64_t drained_bytes = 16u << 10;

const std::array<std::uint8_t, payload_bytes> nothing{};
const std::array<std::uint8_t, wire::data_header_bytes> no_header{};
}  // namespace

void Prober::begin(PeerId peer, std::uint32_t round, Duration time, Instant now) {
  stop();
  peer_ = peer;
  round_ = round;
  rtt_ = Duration{round_trip_us(links_, peer)} * microsecond;
  rate_.begin(time, rtt_, now);
  rate_.add(now, confirmed(nullptr));
  next_at_ = now + look_every;
  top_up();
}

void Prober::top_up() {
  if (peer_ == no_peer || drained_by_ != never) return;
  links_.each_stripe([&](PeerId peer, net::Connection& stripe) {
    if (peer != peer_) return;
    while (stripe.open() && stripe.queued_bytes() < queued_bytes)
      stripe.send_payload(wire::FrameKind::probe, {no_header.data(), no_header.size()}, nothing.data(),
                          nothing.size(), token);
    links_.touch(stripe);
  });
}

// What leaves a stripe in this way tells nobody of it.
void Prober::make_room() {
  links_.detach(peer_, token);
  woken_.push_back(peer_);
}

void Prober::stop() {
  if (peer_ == no_peer) return;
  make_room();
  peer_ = no_peer;
  next_at_ = drained_by_ = never;
}

std::uint64_t Prober::confirmed(std::uint64_t* under_way) {
  std::uint64_t sum = 0, sent = 0;
  links_.each_stripe([&](PeerId peer, net::Connection& stripe) {
    if (peer != peer_) return;
    sum += net::tcp_state(stripe.socket()).acked;
    sent += stripe.bytes_out() + stripe.queued_bytes();
  });
  if (under_way != nullptr) *under_way = sent > sum ? sent - sum : 0;
  return sum;
}

std::optional<Prober::Result> Prober::tick(Instant now) {
  if (peer_ == no_peer || now < next_at_) return std::nullopt;
  next_at_ = now + look_every;
  std::uint64_t under_way = 0;
  const auto sum = confirmed(&under_way);
  const bool up = links_.up(peer_);
  if (drained_by_ == never && up) {
    rate_.add(now, sum);
    if (!rate_.over(now)) return std::nullopt;
    drained_by_ = now + drain_most;
    make_room();
  }
  if (up && now < drained_by_ && under_way > drained_bytes) return std::nullopt;
  const auto rtt = up ? round_trip_us(links_, peer_) : 0;
  const Result result{round_, {peer_, up ? rate_.best() : 0, rtt, Evidence::probe}};
  stop();
  return result;
}

}  // namespace pccl
