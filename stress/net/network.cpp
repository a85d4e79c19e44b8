#include "network.hpp"

#include <unistd.h>

namespace wan {
namespace {

// At a time from one peer, so that none keeps the others waiting.
constexpr int batch_max = 256;
constexpr std::size_t ip_header_bytes = 20;
constexpr std::size_t last_byte_of_destination = 19;

}  // namespace

Network::Network(const std::vector<int>& devices, std::size_t mtu, std::uint64_t seed) : buffers_(mtu) {
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
    const std::optional<std::uint32_t> buffer = buffers_.take();
    if (!buffer) return true;  // it waits in the device until others have arrived
    const ssize_t bytes = ::read(peers_[from].device, buffers_.at(*buffer), buffers_.bytes());
    if (bytes <= 0 || !set_out(from, *buffer, static_cast<std::size_t>(bytes), now)) {
      buffers_.give_back(*buffer);
    }
    if (bytes <= 0) return count > 0;
  }
  return true;
}

std::optional<std::size_t> Network::receiver_of(const char* packet, std::size_t bytes,
                                                std::size_t from) const {
  if (bytes < ip_header_bytes || packet[0] >> 4 != 4) return std::nullopt;
  const std::size_t host = static_cast<unsigned char>(packet[last_byte_of_destination]);
  if (host == 0 || host > size() || host - 1 == from) return std::nullopt;
  return host - 1;
}

// Whether the packet is on its way; else its buffer is free again.
bool Network::set_out(std::size_t from, std::uint32_t buffer, std::size_t bytes, Nanoseconds now) {
  const std::optional<std::size_t> to = receiver_of(buffers_.at(buffer), bytes, from);
  if (!to) return false;
  Link& way = link(from, *to);
  if (!is_open(from, *to)) {
    ++way.counters.cut;
    return false;
  }
  const std::optional<Nanoseconds> left = peers_[from].up.pass(now, bytes);
  if (!left) {
    ++way.counters.dropped;
    return false;
  }
  const std::optional<Nanoseconds> arrives = way.carry(*left, bytes);
  if (!arrives) return false;
  flights_.push({*arrives, flown_++, buffer, static_cast<std::uint32_t>(bytes), way.period(),
                 static_cast<std::uint16_t>(from), static_cast<std::uint16_t>(*to), false});
  return true;
}

std::optional<Nanoseconds> Network::deliver(Nanoseconds now) {
  while (!flights_.empty() && flights_.top().due <= now) {
    const Flight flight = flights_.top();
    flights_.pop();
    if (!arrive(flight, now)) buffers_.give_back(flight.buffer);
  }
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
    return false;
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
  LinkCounters& counters = link(flight.from, flight.to).counters;
  if (::write(peers_[flight.to].device, buffers_.at(flight.buffer), flight.bytes) < 0) {
    ++refused_;
    return;
  }
  ++counters.packets;
  counters.bytes += flight.bytes;
  const Nanoseconds late = now - flight.due;
  ++lateness_.packets;
  lateness_.sum += late;
  lateness_.max = std::max(lateness_.max, late);
}

}  // namespace wan
