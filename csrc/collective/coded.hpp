// Sums over GF(2^8) of blocks that lie with several peers, each for an owner: parities of an erasure code, or
// what is decoded from them. Pure; the table is the same at all peers of an operation.
#pragma once
#include <cstdint>
#include <vector>

#include "base/result.hpp"
#include "collective/plan.hpp"

namespace pccl {

// coefficient * a block of the peer at a position.
struct CodedTerm {
  std::uint32_t position = 0, block = 0;
  std::uint8_t coefficient = 1;
};

struct CodedSum {
  std::uint32_t owner = 0;         // position that gets it
  std::vector<CodedTerm> terms{};  // of different positions, in the order in which the sum travels
};

using CodedSums = std::vector<CodedSum>;

// Whether so many peers can make them; what no table may say.
Error fault_of(const CodedSums& sums, std::uint32_t world);

// Of all that they say: who means something else has another one.
std::uint64_t fingerprint(const CodedSums& sums);

// Of kernels::galois_reduction.
std::vector<std::vector<std::uint8_t>> coefficients(const CodedSums& sums, std::uint32_t world);

// Segment s is sum s. It starts at its first contributor, grows from one to the next and ends at its owner,
// who adds its own block, if it has one, and tells the first: so many chunks may be on their way. What
// travels are as many blocks as there are contributors that are not the owner.
Plan plan_coded_reduce(std::uint32_t position, std::uint32_t world, const CodedSums& sums);

}  // namespace pccl
