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
  signal,   // the word that a chunk is done elsewhere, without bytes: what a gate waits for
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
  bool signals = false;                // to its receivers leaves no more than the word that it is done
  std::int32_t fold = -1;              // of a collect, or of an inner fold: the step that adds it up
  std::vector<std::uint16_t> parts{};  // of a fold: its collects and inner folds in the order of addition
  // Of an own: chunk k leaves when k - window chunks of that step have arrived: what others must hold is
  // bounded.
  std::int32_t gate = -1;
  std::vector<Hop> to{};
};

struct Plan {
  std::uint32_t position = 0, world = 1;
  std::vector<Step> steps{};
  std::uint32_t segments = 1;  // that the tensors are cut into; the hidden ones of the weights follow
};

// What a fold adds up: the input of a position, or a sum that is an accumulator already.
struct Part {
  std::uint32_t position = 0;
  Wire wire = Wire::element;
};
Part part_of(const Plan& plan, const Step& fold, std::size_t index);

// Ring reduce-scatter and all-gather, 2(P-1) hops (Patarasuk and Yuan 2009). Segment s starts at position s,
// is summed around the ring, finished by position s-1 and copied verbatim from there. Weighted: the weights
// go round first. Nobody starts more chunks than the window before their sums come by: so a ring in which
// one link is slow holds at most a window of partial sums per segment. It cannot lock: only what starts is
// gated, it waits for chunks of its own segment only, and what has started leaves before all that starts.
Plan plan_ring_all_reduce(std::uint32_t position, std::uint32_t world, bool weighted);

// Direct reduce-scatter and all-gather on a full mesh, 2 hops: each segment's owner hears all others, adds in
// the order of positions, and sends the sum to everybody. Quantized: parts and sums are encoded once each.
Plan plan_direct_all_reduce(std::uint32_t position, std::uint32_t world, bool weighted,
                            Wire wire = Wire::element);

// One hop on a full mesh, for what is small: everybody sends everything to everybody, and all add in the
// order of positions. One segment; not weighted. Two peers may do it with any size: neither gets more than a
// window ahead of the other.
Plan plan_exchange_all_reduce(std::uint32_t position, std::uint32_t world);

// For groups whose peers share hosts, on a full mesh; `hosts`: the host's number, by position. In each host
// one peer adds up what the peers there have of a segment, in their order; of these one adds up the hosts'
// sums in the order of hosts, and the result goes back the same way. Hosts with fewer peers than others have
// each of them stand for several. Quantized it does not exist.
Plan plan_two_level_all_reduce(std::uint32_t position, const std::vector<std::uint32_t>& hosts,
                               bool weighted);
// Parts that wait for others at one position of it, at most, for each chunk of the window.
std::uint32_t two_level_parts(const std::vector<std::uint32_t>& hosts);
// More than one host, and on one of them more than one peer: else it is the direct plan.
bool has_two_levels(const std::vector<std::uint32_t>& hosts);

// Calls in blocks: segment p is the block of position p, at the root or everywhere. Of all-to-all, segment d
// is what goes to whom comes d positions later: each peer knows of its own blocks only.
Plan plan_all_gather(std::uint32_t position, std::uint32_t world);
Plan plan_gather(std::uint32_t position, std::uint32_t world, std::uint32_t root);
Plan plan_scatter(std::uint32_t position, std::uint32_t world, std::uint32_t root);
Plan plan_all_to_all(std::uint32_t position, std::uint32_t world);
Plan plan_direct_reduce_scatter(std::uint32_t position, std::uint32_t world);
Plan plan_ring_reduce_scatter(std::uint32_t position, std::uint32_t world);

// A chain from the root around the ring; chunks follow each other.
Plan plan_ring_broadcast(std::uint32_t position, std::uint32_t world, std::uint32_t root);
// On a full mesh, 2 hops: the root gives each other one a part, and they tell each other.
Plan plan_direct_broadcast(std::uint32_t position, std::uint32_t world, std::uint32_t root);
// One hop, for what is small: the root sends to everybody.
Plan plan_exchange_broadcast(std::uint32_t position, std::uint32_t world, std::uint32_t root);

// From position 0 to position 1.
Plan plan_transfer(std::uint32_t position);

}  // namespace pccl
