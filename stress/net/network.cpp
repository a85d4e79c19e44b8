#include "network.hpp"

#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace wan {
namespace {

// At a time from one peer, so that none keeps the others waiting.
constexpr int batch_max = 256;
// Packets that a kernel hands over in one go: 64 KiB in the smallest ones.
constexpr std::size_t burst_max = 128;
constexpr std::size_t ip_header_bytes = 20;
constexpr std::size_t last_byte_of_destination = 19;

}  // namespace

Network::Network(const std::vector<int>& devices, std::size_t mtu, std::uint64_t seed)
    : buffers_(mtu), handed_(handed_over_max), arrived_(devices.size() * devices.size()) {
  for (std::size_t i = 0; i < devices.size(); ++i) {
    peers_.emplace_back().device = devices[i];
    for (std::size_t j = 0; j < devices.size(); ++j) links_.emplace_back((seed << 16) + (i << 8) + j);
  }
}

void Network::isolate(std::size_t peer) {
  peers_[peer].isolated = true;
  for (std::size_t i = 0; i < size(); ++i) {
    link(i, peer).lose_what_is_on_its_way();
    link(peer, i).lose_what_is_on_its_way();
  }
}

bool Network::is_open(std::size_t from, std::size_t to) const {
  return !links_[from * size() + to].is_cut() && !peers_[from].isolated && !peers_[to].isolated;
}

bool Network::receive(std::size_t from, Nanoseconds now) {
  for (int count = 0; count < batch_max; ++count) {
    if (buffers_.left() < burst_max) return true;  // it waits in the device until others have arrived
    const ssize_t bytes = ::read(peers_[from].device, handed_.data(), handed_.size());
    if (bytes <= 0) return count > 0;
    take(from, static_cast<std::size_t>(bytes), now);
  }
  return true;
}

void Network::take(std::size_t from, std::size_t bytes, Nanoseconds now) {
  Flight flight{};
  if (bytes < sizeof flight.card) return;
  std::memcpy(&flight.card, handed_.data(), sizeof flight.card);
  const char* packet = handed_.data() + sizeof flight.card;
  bytes -= sizeof flight.card;
  const auto shape = tcp_packet(packet, bytes);
  if (flight.card.kind == 0 || !shape) {
    const auto buffer = bytes <= buffers_.bytes() ? buffers_.take() : std::nullopt;
    if (!buffer) return;
    std::memcpy(buffers_.at(*buffer), packet, bytes);
    flight.buffer = *buffer;
    flight.bytes = static_cast<std::uint32_t>(bytes);
    if (!set_out(from, flight, now)) buffers_.give_back(flight.buffer);
    return;
  }
  const std::size_t segment_bytes =
      std::min<std::size_t>(flight.card.segment_bytes, buffers_.bytes() - shape->header_bytes);
  flight.burst = ++bursts_ == 0 ? ++bursts_ : bursts_;
  for (;; ++flight.segment) {
    const auto buffer = buffers_.take();
    if (!buffer) return;
    const auto length = cut(packet, bytes, *shape, segment_bytes, flight.segment, buffers_.at(*buffer));
    flight.buffer = *buffer;
    flight.bytes = static_cast<std::uint32_t>(length.value_or(0));
    if (!length || !set_out(from, flight, now)) buffers_.give_back(flight.buffer);
    if (!length) return;
  }
}

std::optional<std::size_t> Network::receiver_of(const char* packet, std::size_t bytes,
                                                std::size_t from) const {
  if (bytes < ip_header_bytes || packet[0] >> 4 != 4) return std::nullopt;
  const std::size_t host = static_cast<unsigned char>(packet[last_byte_of_destination]);
  if (host == 0 || host > size() || host - 1 == from) return std::nullopt;
  return host - 1;
}

// Whether the packet is on its way; else its buffer is free again.
bool Network::set_out(std::size_t from, Flight flight, Nanoseconds now) {
  const std::optional<std::size_t> to = receiver_of(buffers_.at(flight.buffer), flight.bytes, from);
  if (!to) return false;
  Link& way = link(from, *to);
  if (!is_open(from, *to)) {
    ++way.counters.cut;
    return false;
  }
  const std::optional<Nanoseconds> left = peers_[from].up.pass(now, flight.bytes);
  if (!left) {
    ++way.counters.dropped;
    return false;
  }
  const std::optional<Nanoseconds> arrives = way.carry(*left, flight.bytes);
  if (!arrives) return false;
  flight.due = *arrives;
  flight.order = flown_++;
  flight.period = way.period();
  flight.from = static_cast<std::uint16_t>(from);
  flight.to = static_cast<std::uint16_t>(*to);
  flights_.push(flight);
  return true;
}

std::optional<Nanoseconds> Network::deliver(Nanoseconds now) {
  while (!flights_.empty() && flights_.top().due <= now) {
    const Flight flight = flights_.top();
    flights_.pop();
    if (!arrive(flight, now)) buffers_.give_back(flight.buffer);
  }
  for (auto& joined : arrived_) hand_over_joined(joined);
  if (flights_.empty()) return std::nullopt;
  return flights_.top().due;
}

// Whether the packet goes on, through the receiver's access line; else its buffer is free again.
bool Network::arrive(Flight flight, Nanoseconds now) {
  Link& way = link(flight.from, flight.to);
  if (flight.period != way.period() || !is_open(flight.from, flight.to)) {
    ++way.counters.cut;
    return false;
  }
  if (flight.at_receiver || peers_[flight.to].down.rate_mbit <= 0) {
    hand_over(flight, now);
    return true;
  }
  const std::optional<Nanoseconds> done = peers_[flight.to].down.pass(flight.due, flight.bytes);
  if (!done) {
    ++way.counters.dropped;
    return false;
  }
  flight.due = *done;
  flight.order = flown_++;
  flight.at_receiver = true;
  flights_.push(flight);
  return true;
}

void Network::hand_over(const Flight& flight, Nanoseconds now) {
  auto& joined = arrived_[flight.from * size() + flight.to];
  const bool follows = !joined.empty() && flight.burst != 0 && flight.burst == joined.back().burst &&
                       flight.segment == joined.back().segment + 1 && joined.size() < burst_max;
  if (!follows) hand_over_joined(joined);
  joined.push_back(flight);
  const Nanoseconds late = now - flight.due;
  ++lateness_.packets;
  lateness_.sum += late;
  lateness_.max = std::max(lateness_.max, late);
}

void Network::hand_over_joined(std::vector<Flight>& joined) {
  if (joined.empty()) return;
  const Flight& first = joined.front();
  CardHeader card = first.card;
  std::array<iovec, burst_max + 1> parts;
  std::size_t count = 0;
  parts[count++] = {&card, sizeof card};
  parts[count++] = {buffers_.at(first.buffer), first.bytes};
  if (first.burst != 0) {
    const auto shape = *tcp_packet(buffers_.at(first.buffer), first.bytes);
    std::size_t payload = first.bytes - shape.header_bytes;
    card.kind = joined.size() > 1 ? card_cuts_tcp : 0;
    card.segment_bytes = static_cast<std::uint16_t>(joined.size() > 1 ? payload : 0);
    for (std::size_t i = 1; i < joined.size(); ++i) {
      const std::size_t more = joined[i].bytes - shape.header_bytes;
      parts[count++] = {buffers_.at(joined[i].buffer) + shape.header_bytes, more};
      payload += more;
    }
    join(buffers_.at(first.buffer), shape, payload, buffers_.at(joined.back().buffer));
  }
  const bool taken = ::writev(peers_[first.to].device, parts.data(), static_cast<int>(count)) >= 0;
  for (const Flight& flight : joined) {
    LinkCounters& counters = link(flight.from, flight.to).counters;
    counters.packets += taken ? 1 : 0;
    counters.bytes += taken ? flight.bytes : 0;
    refused_ += taken ? 0 : 1;
    buffers_.give_back(flight.buffer);
  }
  joined.clear();
}

}  // namespace wan
