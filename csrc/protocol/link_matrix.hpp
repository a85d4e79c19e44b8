// What is known about the directed data links between peers: bandwidth and round trip, averaged from probes
// and from real transfers. Pure: `now` comes in. The master owns one; it lets in reports of members about
// members.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "wire/types.hpp"

namespace pccl {

struct Link {
  std::uint64_t bandwidth = 0;  // bytes per second; 0: unknown
  Duration rtt = 0;             // 0: unknown
  bool operator==(const Link&) const = default;
};

// One report. What was not measured is 0.
struct LinkSample {
  Link measured;
  Evidence evidence = Evidence::probe;
};

class LinkMatrix {
 public:
  struct Entry {
    PeerId to = no_peer;
    Link link;
    Instant bandwidth_at = 0, rtt_at = 0;  // of the last sample that counted
  };

  // Exponential average: a probe counts half, a transfer a quarter, against an estimate that loses half of
  // its weight every two minutes. Reports are clamped, so that no value overflows a sum.
  void learn(PeerId from, PeerId to, const LinkSample& sample, Instant now);
  void forget(PeerId peer);                               // it left: links from it and to it
  void assume(PeerId from, PeerId to, const Link& link);  // whatever was measured; for what-if

  Link at(PeerId from, PeerId to) const;          // zeros where nothing is known
  std::span<const Entry> row(PeerId from) const;  // known links from a peer, ascending by the other end

 private:
  std::map<PeerId, std::vector<Entry>> rows_;
};

}  // namespace pccl
