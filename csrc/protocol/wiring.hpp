// What the links between peers mean for the next view: ring orders, and the hints by which plans are chosen.
// Pure; the master owns one.
#pragma once
#include <set>

#include "protocol/topology.hpp"
#include "wire/values.hpp"

namespace pccl {

// The peers of one group, in the ring order in use, with the number of each one's host (0: not known).
struct GroupRing {
  std::uint32_t group = 0;
  std::vector<PeerId> ring;
  std::vector<std::uint32_t> hosts;
};
using PeerPairs = std::set<std::pair<PeerId, PeerId>>;  // (smaller, larger)

class Wiring {
 public:
  void learn(PeerId from, const MeasuredLink& link, Instant now);
  void forget(PeerId peer) { matrix_.forget(peer); }
  const LinkMatrix& links() const { return matrix_; }

  // The best order that is known for a group. `report.adopted`: it is enough better than the one in use, and
  // none of its links is one that cannot be opened; where not all peers have links to all others (no mesh),
  // also every new neighbour's link has been used already.
  struct Proposal {
    std::vector<PeerId> ring;
    RingReport report;
  };
  Proposal propose(const GroupRing& group, const PeerPairs& unreachable, bool mesh) const;

  // Nothing for groups of which nothing is known.
  std::vector<GroupPaths> paths(const std::vector<GroupRing>& groups) const;

 private:
  LinkMatrix completed(const GroupRing& group, const PeerPairs& unreachable) const;

  LinkMatrix matrix_;
};

// Values that differ by more than a quarter, or of which one is not known: another plan may be the best.
bool differ_materially(const std::vector<GroupPaths>& told, const std::vector<GroupPaths>& now);

}  // namespace pccl
