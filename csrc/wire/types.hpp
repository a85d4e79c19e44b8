// Names that peers and the master use for each other, for views and for operations.
#pragma once
#include <compare>
#include <cstdint>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/dtype.hpp"
#include "base/limits.hpp"
#include "base/quantization.hpp"

namespace pccl {

using PeerId = std::uint64_t;  // given by the master, ascending in the order of joining; 0 is nobody
inline constexpr PeerId no_peer = 0;

// Views are ordered by the master that made them first: a restarted master has a larger incarnation.
struct ViewId {
  std::uint32_t incarnation = 0;
  std::uint32_t number = 0;
  auto operator<=>(const ViewId&) const = default;
  template <class V> void fields(V&& v) {
    v(incarnation);
    v(number);
  }
};

// Peers of one role have a roster of their own: views, boundaries, operations. Those of another role are not
// in it, and do not know of it.
enum class Role : std::uint8_t { trainer = 1, keeper = 2 };
enum class Scope : std::uint8_t { group = 1, run = 2, pair = 3 };

// One use of a tag. `count` numbers the uses of `name` (0: the automatic one) since the boundary, where all
// peers start at 0 again: so a joiner knows every counter.
struct Tag {
  std::uint32_t boundary = 0;
  std::uint32_t name = 0;
  std::uint32_t count = 0;
  auto operator<=>(const Tag&) const = default;
  template <class V> void fields(V&& v) {
    v(boundary);
    v(name);
    v(count);
  }
};

// An operation of the run; with the view it names one attempt. `group` is 0 unless that is the scope. A pair
// is two peers of which `from` sends and `to` receives: its tags are counted for it alone.
struct OpKey {
  Scope scope = Scope::group;
  std::uint32_t group = 0;
  Tag tag;
  PeerId from = no_peer, to = no_peer;
  auto operator<=>(const OpKey&) const = default;
  template <class V> void fields(V&& v) {
    v(scope);
    v(group);
    v(tag);
    v(from);
    v(to);
  }
  bool names(PeerId peer) const { return peer != no_peer && (peer == from || peer == to); }
};

enum class Call : std::uint8_t {
  all_reduce = 1,
  broadcast,
  barrier,
  sync_state,
  update_topology,
  reduce_scatter,
  all_gather,
  gather,
  scatter,
  all_to_all,
  transfer,     // send at one end, recv at the other
  coded_reduce  // sums over GF(2^8) of blocks of several peers, each for its owner
};
enum class Algorithm : std::uint8_t { automatic = 1, ring, direct, exchange, two_level };
enum class OnLoss : std::uint8_t {
  retry = 1,
  raise,   // somebody who leaves ends the operation for all
  remake,  // inputs are not kept: whatever ends an attempt ends the operation for all, who make them again
};
// What keeps an operation waiting.
enum class Trouble : std::uint8_t {
  late = 1,         // it has not come to the call
  elsewhere,        // and waits in another one
  silent,           // nothing is heard of it
  receives_slowly,  // it leaves unread what `other` sent
  slow_way,         // from it to `other`
  sends_slowly,     // `other` and more have nothing from it, and it waits for nobody
};
enum class Strategy : std::uint8_t { enforce_popular = 1, send_only, receive_only };
// What a measurement of a link says.
enum class Evidence : std::uint8_t {
  probe = 1,  // the link was kept full on purpose
  transfer,   // an operation kept it full: the sender waited for the link
  at_least,   // an operation used it, and the sender waited for data: the link may be faster, never slower
};

template <> inline constexpr std::uint8_t last_of<Role> = 2;
template <> inline constexpr std::uint8_t last_of<Scope> = 3;
template <> inline constexpr std::uint8_t last_of<Call> = 12;
template <> inline constexpr std::uint8_t last_of<Algorithm> = 5;
template <> inline constexpr std::uint8_t last_of<OnLoss> = 3;
template <> inline constexpr std::uint8_t last_of<Strategy> = 3;
template <> inline constexpr std::uint8_t last_of<Trouble> = 6;
template <> inline constexpr std::uint8_t last_of<Evidence> = 3;
template <> inline constexpr std::uint8_t last_of<DType> = 12;
template <> inline constexpr std::uint8_t last_of<ReduceOp> = 5;

// Calls whose tensors are in blocks, one per peer.
constexpr bool in_blocks(Call call) {
  return (call >= Call::reduce_scatter && call <= Call::all_to_all) || call == Call::coded_reduce;
}
// Calls whose peers may need links beyond those of the ring.
constexpr bool goes_straight(Call call) { return in_blocks(call) || call == Call::transfer; }
// Calls of which one peer is the root.
constexpr bool has_root(Call call) {
  return call == Call::broadcast || call == Call::gather || call == Call::scatter;
}

inline const char* name(Call call) {
  constexpr const char* names[] = {"?",
                                   "all_reduce",
                                   "broadcast",
                                   "barrier",
                                   "sync_shared_state",
                                   "update_topology",
                                   "reduce_scatter",
                                   "all_gather",
                                   "gather",
                                   "scatter",
                                   "all_to_all",
                                   "send and recv",
                                   "coded_reduce_scatter"};
  return names[static_cast<std::uint8_t>(call)];
}

inline const char* name(Role role) { return role == Role::keeper ? "keeper" : "trainer"; }

inline const char* name(Trouble trouble) {
  constexpr const char* names[] = {"?",        "late",        "elsewhere", "silent", "receives_slowly",
                                   "slow_way", "sends_slowly"};
  return names[static_cast<std::uint8_t>(trouble)];
}

inline const char* name(Algorithm algorithm) {
  constexpr const char* names[] = {"?", "automatic", "ring", "direct", "exchange", "two-level"};
  return names[static_cast<std::uint8_t>(algorithm)];
}

std::string describe(const Tag& tag);
std::string describe(const OpKey& key);

struct Address {
  std::string host;  // a name or a literal, as the peer wants to be reached
  std::uint16_t port = 0;
  bool operator==(const Address&) const = default;
  template <class V> void fields(V&& v) {
    v(host, limits::name_bytes_max);
    v(port);
  }
};

// A peer as everybody in the view knows it.
struct Member {
  PeerId peer = no_peer;
  std::string island;
  std::uint16_t island_rank = 0;
  std::uint32_t group = 0;
  Role role = Role::trainer;
  std::vector<Address> reachable_at;
  // Members with the same number are on one host; 0: it is not known where. Numbers hold for one view.
  std::uint32_t host = 0;
  bool in_place = false;  // chunks between it and others of its host stay where they are
  bool operator==(const Member&) const = default;
  template <class V> void fields(V&& v) {
    v(peer);
    v(island, limits::name_bytes_max);
    v(island_rank);
    v(group);
    v(role);
    v(reachable_at, limits::addresses_max);
    v(host);
    v(in_place);
  }
};

// The paths between the peers of one group, summed up. 0: not measured.
struct GroupPaths {
  std::uint32_t group = 0;
  std::uint64_t ring_bandwidth = 0;   // bytes per second of the slowest link that the ring uses
  std::uint64_t mesh_bandwidth = 0;   // of the slowest link between any two
  std::uint64_t local_bandwidth = 0;  // of the slowest link between two on one host
  std::uint32_t ring_rtt_us = 0, mesh_rtt_us = 0, local_rtt_us = 0;  // the longest round trips
  // Time that a sent byte costs with its receiver's work, on the host where its peers share the fewest cores.
  std::uint32_t cpu_ps_per_byte = 0;
  std::uint16_t hosts = 0, host_peers = 0;  // hosts, and peers on the fullest one
  bool operator==(const GroupPaths&) const = default;
  template <class V> void fields(V&& v) {
    v(group);
    v(ring_bandwidth);
    v(mesh_bandwidth);
    v(local_bandwidth);
    v(ring_rtt_us);
    v(mesh_rtt_us);
    v(local_rtt_us);
    v(cpu_ps_per_byte);
    v(hosts);
    v(host_peers);
  }
};

// What the choice of a plan depends on: distributed with the view, never measured by one peer for itself.
struct PlanHints {
  Algorithm algorithm = Algorithm::automatic;
  std::uint32_t chunk_bytes = 0;       // 0: the default of the path
  std::uint8_t stripes = 0;            // 0: by path
  bool mesh = false;                   // every peer has a link to every other of its group
  bool deterministic = false;          // nothing measured decides: the same bits from run to run
  std::vector<GroupPaths> paths = {};  // of groups that were measured; every group has a member
  bool operator==(const PlanHints&) const = default;
  template <class V> void fields(V&& v) {
    v(algorithm);
    v(chunk_bytes);
    v(stripes);
    v(mesh);
    v(deterministic);
    v(paths, limits::members_max);
  }
};

// What probes said about the ring of one group. Speeds are of the slowest link that a ring uses, round trips
// of all its links together; 0: not measured.
struct RingReport {
  std::uint32_t group = 0;
  bool adopted = false;  // the best order that was found is in use from this view on
  std::uint64_t bandwidth_before = 0, bandwidth = 0;  // of the order in use until now, and of the best one
  std::uint32_t latency_before_us = 0, latency_us = 0;
  std::uint32_t links = 0, measured = 0;  // from any peer of the group to any other
  bool operator==(const RingReport&) const = default;
  template <class V> void fields(V&& v) {
    v(group);
    v(adopted);
    v(bandwidth_before);
    v(bandwidth);
    v(latency_before_us);
    v(latency_us);
    v(links);
    v(measured);
  }
};

struct View {
  ViewId id;
  std::uint32_t boundaries = 0;  // boundaries passed so far
  std::uint32_t waiting = 0;     // islands at the door when the view was made
  std::vector<Member> members;   // in admission order; a peer's rank is its position in its group
  std::vector<PeerId> order;     // ring order where it differs from admission order; empty: the same
  PlanHints hints;
  std::vector<RingReport> rings = {};  // only in the view that ends a measurement which all peers called for
  bool operator==(const View&) const = default;
  template <class V> void fields(V&& v) {
    v(id);
    v(boundaries);
    v(waiting);
    v(members, limits::members_max);
    v(order, limits::members_max);
    v(hints);
    v(rings, limits::members_max);
  }

  // What every view has that an honest master makes, and what others may have written otherwise: its members
  // are different peers, and of one role.
  bool consistent() const {
    std::set<PeerId> peers;
    for (const auto& member : members)
      if (member.peer == no_peer || member.role != members.front().role || !peers.insert(member.peer).second)
        return false;
    return true;
  }
  std::vector<PeerId> ids() const {
    std::vector<PeerId> peers;
    for (const auto& member : members) peers.push_back(member.peer);
    return peers;
  }
  const Member* find(PeerId peer) const {
    for (const auto& member : members)
      if (member.peer == peer) return &member;
    return nullptr;
  }
  // The members of a group in ring order; a list that does not name them all does not count.
  std::vector<PeerId> ring(std::uint32_t group) const {
    auto peers = group_members(group);
    if (order.empty()) return peers;
    const std::set<PeerId> wanted(peers.begin(), peers.end());
    std::set<PeerId> seen;
    std::vector<PeerId> ordered;
    for (const auto peer : order)
      if (wanted.contains(peer) && seen.insert(peer).second) ordered.push_back(peer);
    return ordered.size() == peers.size() ? ordered : peers;
  }
  std::vector<PeerId> group_members(std::uint32_t group) const {
    std::vector<PeerId> peers;
    for (const auto& member : members)
      if (member.group == group) peers.push_back(member.peer);
    return peers;
  }
};

}  // namespace pccl
