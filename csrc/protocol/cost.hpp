// Which plan an operation takes: predicted from what the master distributed with the view, in integers only,
// so that every peer comes to the same answer. Pure.
#pragma once
#include <cstdint>
#include <optional>

#include "base/clock.hpp"
#include "wire/types.hpp"

namespace pccl {

// Algorithms as a set: those that the caller can carry out. All but the ring need the mesh.
using AlgorithmSet = std::uint8_t;
constexpr AlgorithmSet only(Algorithm algorithm) {
  return AlgorithmSet(1u << static_cast<std::uint8_t>(algorithm));
}
inline constexpr AlgorithmSet all_algorithms =
    only(Algorithm::ring) | only(Algorithm::direct) | only(Algorithm::exchange) | only(Algorithm::two_level);

// An operation as far as its cost depends on it.
struct PlanRequest {
  Call call = Call::all_reduce;
  std::uint32_t peers = 1;          // of the group
  std::uint64_t bytes = 0;          // of all tensors, as elements
  std::uint64_t partial_bytes = 0;  // as partial sums: twice as many for 16-bit floats; 0: the same
  std::uint64_t encoded_bytes = 0;  // as quantized; 0: not quantized
  Algorithm algorithm = Algorithm::automatic;  // what the user wants, if it can be done
  AlgorithmSet available = all_algorithms;
  bool deterministic = false;  // nothing measured decides: the same plan from run to run
};

struct PlanChoice {
  Algorithm algorithm = Algorithm::ring;
  std::uint32_t chunk_bytes = 0;
  std::uint8_t stripes = 1;  // that a link uses for this operation
  Duration predicted = 0;    // from the moment that everybody has posted it
  bool operator==(const PlanChoice&) const = default;
};

enum class Path : std::uint8_t { host, lan, wan };
Path path_of(const GroupPaths& paths);

// Stripes that a link of this path should have.
std::uint8_t stripes_of(Path path, std::uint64_t bandwidth, std::uint32_t rtt_us);

// Of these, so many share the bytes of a large operation that keeps `links` of a peer busy at a time:
// the streams of all of them share its access line, of `bandwidth` (0: not known). More than it takes to fill
// that only push each other out of its queue. One link alone uses all that it has.
std::uint8_t bulk_stripes(std::uint64_t bandwidth, std::uint32_t rtt_us, std::size_t links);

// What the view says about a group; zeros where it says nothing: then a fast local network is assumed.
GroupPaths paths_of(const PlanHints& hints, std::uint32_t group);

// Nothing where the algorithm cannot be used: not available, too large, too many peers, no hosts to split.
std::optional<Duration> predict(const GroupPaths& paths, const PlanRequest& request, Algorithm algorithm);

// The user's algorithm, else the view's, else the fastest by prediction; the view's chunk size and stripes
// before the path's. A wish that cannot be carried out is passed over. Quantized: direct wherever the mesh is
// complete.
PlanChoice choose_plan(const PlanHints& hints, std::uint32_t group, const PlanRequest& request);

}  // namespace pccl
