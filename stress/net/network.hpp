// Packets on their way between the peers: access line of the sender, link, access line of the receiver.
// Reads and writes the TUN devices; everything happens on one thread, at the times it is called with.
#pragma once
#include <cstdint>
#include <optional>
#include <queue>
#include <vector>

#include "buffers.hpp"
#include "line.hpp"
#include "link.hpp"
#include "segments.hpp"

namespace wan {

struct Peer {
  int device = -1;  // its TUN device, non-blocking
  Line up, down;
  bool isolated = false;
};

struct Lateness {
  std::uint64_t packets = 0;
  Nanoseconds sum = 0, max = 0;  // from when a packet was due to when it was handed over
};

class Network {
 public:
  // Peer i has the address that ends with i + 1. `seed` decides what is lost and how jitter falls.
  Network(const std::vector<int>& devices, std::size_t mtu, std::uint64_t seed);

  std::size_t size() const { return peers_.size(); }
  Peer& peer(std::size_t at) { return peers_[at]; }
  Link& link(std::size_t from, std::size_t to) { return links_[from * size() + to]; }

  void isolate(std::size_t peer);
  // Takes what peer `from` has sent; whether there was something. Where the kernel left it to its card to cut
  // that into packets, each of them has its own fate.
  bool receive(std::size_t from, Nanoseconds now);
  // Hands over what is due; when the next packet is.
  std::optional<Nanoseconds> deliver(Nanoseconds now);

  std::size_t on_their_way() const { return flights_.size(); }
  const Lateness& lateness() const { return lateness_; }
  std::uint64_t refused() const { return refused_; }  // by a receiver's device

 private:
  struct Flight {
    Nanoseconds due;
    std::uint64_t order;  // among those due at the same time: as they came
    std::uint32_t buffer, bytes, period;
    std::uint16_t from, to;
    bool at_receiver;  // its access line is behind it
    // The kernel handed it over together with those before and after it, of the same burst; 0: alone.
    std::uint16_t segment;
    std::uint32_t burst;
    CardHeader card;
    bool operator<(const Flight& other) const {  // the queue's top is its largest
      return due != other.due ? due > other.due : order > other.order;
    }
  };

  bool is_open(std::size_t from, std::size_t to) const;
  std::optional<std::size_t> receiver_of(const char* packet, std::size_t bytes, std::size_t from) const;
  void take(std::size_t from, std::size_t bytes, Nanoseconds now);
  bool set_out(std::size_t from, Flight flight, Nanoseconds now);
  bool arrive(Flight flight, Nanoseconds now);
  void hand_over(const Flight& flight, Nanoseconds now);
  void hand_over_joined(std::vector<Flight>& joined);

  std::vector<Peer> peers_;
  std::vector<Link> links_;
  Buffers buffers_;
  std::priority_queue<Flight> flights_;
  std::uint64_t flown_ = 0;
  std::uint32_t bursts_ = 0;
  std::vector<char> handed_;  // by a sender, in one go
  // By link, of one burst and without a gap: the receiver gets them in one go.
  std::vector<std::vector<Flight>> arrived_;
  Lateness lateness_;
  std::uint64_t refused_ = 0;
};

}  // namespace wan
