// An algorithm is data: what one position of a world receives, merges and passes on. Pure; one executor runs
// any plan.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/reduce.hpp"

namespace pccl {

using kernels::Wire;

enum class Merge : std::uint8_t {
  own,      // nothing is received: the peer's own input starts its way
  reduce,   // incoming (op) own input
  replace,  // the incoming bytes are the result
  collect,  // what comes waits until all parts of a fold are there
  fold,     // nothing is received: the collected parts and the own input, in one fixed order
};

// Among the parts of a fold: the peer's own input.
inline constexpr std::uint16_t own_part = UINT16_MAX;

struct Hop {
  std::uint32_t position = 0;
  std::uint16_t step = 0;  // the receiver's step
};

struct Step {
  std::uint32_t segment = 0;
  Merge merge = Merge::own;
  std::int32_t from = -1;              // position that sends; -1: nobody
  bool write = false;                  // the outcome belongs into the output
  bool finish = false;                 // the sum is whole here: divide, round
  Wire in = Wire::element;             // what arrives
  Wire out = Wire::element;            // what leaves
  std::int32_t fold = -1;              // of a collect: the step that adds it up
  std::vector<std::uint16_t> parts{};  // of a fold: its collects in the order of addition
  // Chunk k leaves when k - window chunks of that step have arrived: what the receiver must hold is bounded.
  std::int32_t gate = -1;
  std::vector<Hop> to{};
};

struct Plan {
  std::uint32_t position = 0, world = 1;
  std::vector<Step> steps;
};

// Ring reduce-scatter and all-gather, 2(P-1) hops (Patarasuk and Yuan 2009). Segment s starts at position s,
// is summed around the ring, finished by position s-1 and copied verbatim from there. Weighted: the weights
// go round first.
Plan plan_ring_all_reduce(std::uint32_t position, std::uint32_t world, bool weighted);

// Direct reduce-scatter and all-gather on a full mesh, 2 hops: each segment's owner hears all others, adds in
// the order of positions, and sends the sum to everybody. Quantized: parts and sums are encoded once each.
Plan plan_direct_all_reduce(std::uint32_t position, std::uint32_t world, bool weighted,
                            Wire wire = Wire::element);

// One hop on a full mesh, for what is small: everybody sends everything to everybody, and all add in the
// order of positions. One segment; not weighted.
Plan plan_exchange_all_reduce(std::uint32_t position, std::uint32_t world);

// Calls in blocks: segment p is the block of position p, at the root or everywhere; of all-to-all s * world +
// d goes from s to d.
Plan plan_all_gather(std::uint32_t position, std::uint32_t world);
Plan plan_gather(std::uint32_t position, std::uint32_t world, std::uint32_t root);
Plan plan_scatter(std::uint32_t position, std::uint32_t world, std::uint32_t root);
Plan plan_all_to_all(std::uint32_t position, std::uint32_t world);
Plan plan_direct_reduce_scatter(std::uint32_t position, std::uint32_t world);
Plan plan_ring_reduce_scatter(std::uint32_t position, std::uint32_t world);

// A chain from the root around the ring; chunks follow each other.
Plan plan_ring_broadcast(std::uint32_t position, std::uint32_t world, std::uint32_t root);

}  // namespace pccl
