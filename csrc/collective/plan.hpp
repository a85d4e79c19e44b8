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
};

struct Hop {
  std::uint32_t position = 0;
  std::uint16_t step = 0;  // the receiver's step
};

struct Step {
  std::uint32_t segment = 0;
  Merge merge = Merge::own;
  std::int32_t from = -1;    // position that sends; -1: nobody
  bool write = false;        // the outcome belongs into the output
  bool finish = false;       // the sum is whole here: divide, round
  Wire in = Wire::element;   // what arrives
  Wire out = Wire::element;  // what leaves
  std::vector<Hop> to;
};

struct Plan {
  std::uint32_t position = 0, world = 1;
  std::vector<Step> steps;
};

// Ring reduce-scatter and all-gather, 2(P-1) hops (Patarasuk and Yuan 2009). Segment s starts at position s,
// is summed around the ring, finished by position s-1 and copied verbatim from there. Weighted: the weights
// go round first.
Plan plan_ring_all_reduce(std::uint32_t position, std::uint32_t world, bool weighted);

// A chain from the root around the ring; chunks follow each other.
Plan plan_ring_broadcast(std::uint32_t position, std::uint32_t world, std::uint32_t root);

}  // namespace pccl
