// Which content of a shared state wins, and who gives it. Pure.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "wire/messages.hpp"

namespace pccl {

struct Election {
  std::uint64_t revision = 0;
  std::vector<ElectedEntry> entries;  // donors: all that hold the root, the winner first
  PeerId winner = no_peer;
};

// Peers whose tensors have other names, dtypes or sizes than those of the newest revision, and are older:
// they cannot take part, and must not stop those who can. Nobody when peers of the same revision differ: then
// nobody can say who is right.
struct Outsiders {
  std::vector<PeerId> peers;
  std::string why;
};
Outsiders outsiders_of(const std::map<PeerId, StateOffer>& offers);

// `offers` are those of one group. send_only offers win over others; then the highest revision, then the
// content that most peers hold, then the smallest peer id. receive_only offers never win and never give what
// differs.
Result<Election> elect(const std::map<PeerId, StateOffer>& offers);

// Of all groups at once, by the same rules for islands instead of peers: what an island holds is elected in
// all groups or in none, so that shards of two islands never mix. Its revision is that of its oldest rank,
// and an island with a receive_only rank does not win. Groups that the winner has no rank in go to the next
// best.
using OffersByGroup = std::map<std::uint32_t, std::map<PeerId, StateOffer>>;
using IslandOf = std::function<std::string(PeerId)>;
Result<std::map<std::uint32_t, Election>> elect_islands(const OffersByGroup& offers,
                                                        const IslandOf& island_of);

}  // namespace pccl
