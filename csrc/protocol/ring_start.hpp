// Where the local search begins: who is near to whom, and a ring made greedily of near ones.
#pragma once
#include <cstdint>
#include <vector>

#include "protocol/ring_graph.hpp"

namespace pccl {

// By peer, the best first: links at or above a rank by their round trips, then faster ones. Where all are
// equal, the next ids come first.
struct NearPeers {
  std::vector<std::vector<std::uint32_t>> out, in;
};
NearPeers near_peers(const RingGraph& graph, std::uint32_t enough);

// Takes the best near links that fit together, then joins what they make.
std::vector<std::uint32_t> join_fragments(const RingGraph& graph, const NearPeers& near,
                                          std::uint32_t enough);

}  // namespace pccl
