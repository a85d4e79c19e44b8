// Two ways to a ring in a table of links: exact for few peers, local search for many. Both answer with
// numbers of the graph, starting with 0.
#pragma once
#include <cstdint>
#include <vector>

#include "protocol/ring_graph.hpp"
#include "protocol/topology.hpp"

namespace pccl {

using RingOrder = std::vector<std::uint32_t>;

// Binary search over the bandwidths that occur for the fastest one with a Hamiltonian cycle, then the
// shortest such cycle; both by dynamic programming over subsets (Held and Karp 1962). 2 to ring_exact_max
// peers.
RingOrder exact_ring(const RingGraph& graph, std::uint32_t slack_percent);

// Greedy fragments, then moves that replace the slowest link and a seeded walk where none does, then moves
// that shorten the ring and seeded kicks. At least 4 peers; `current` (or empty) is one of the starts.
RingOrder search_ring(const RingGraph& graph, const RingOrder& current, const RingOptions& options);

}  // namespace pccl
