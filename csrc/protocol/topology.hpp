// Which ring order the links between peers allow: the slowest link that the ring uses is as fast as possible.
// Pure and deterministic: the same links give the same order everywhere.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "protocol/link_matrix.hpp"

namespace pccl {

struct RingOptions {
  // Rings up to this much slower than the fastest count as equally fast, so that latency decides and not
  // noise.
  std::uint32_t slack_percent = 0;
  // Up to so many peers the answer is exact (time and memory double with each); at most ring_exact_max.
  std::uint32_t exact_peers = 12;
  std::uint64_t seed = 1;
  // Bounds each half of the local search (speed, then latency), in looks at a link of 10-50 ns.
  std::uint64_t work_max = 10'000'000;
};
inline constexpr std::uint32_t ring_exact_max = 16;
// A dense table of links beyond this many peers costs more than a better order gains.
inline constexpr std::size_t ring_peers_max = 2048;

// The cyclic order that maximises its slowest link; among those the one with the smallest sum of round trips;
// among those the smallest in lexicographic order. It starts with the smallest id. Beyond `exact_peers` a
// local search comes close to that, never below `current` if that is an order of the same peers. Beyond
// ring_peers_max: `current`, or the order of the ids.
std::vector<PeerId> best_ring(const LinkMatrix& matrix, std::vector<PeerId> peers,
                              std::span<const PeerId> current = {}, const RingOptions& options = {});

// What an order promises. Unknown links count as the median of the known ones between these peers.
struct RingScore {
  std::uint64_t bottleneck = 0;  // bytes per second of the slowest link; 0: nothing is known
  Duration latency = 0;          // round trips of all links together
  std::uint32_t guessed = 0;     // links whose bandwidth is not known
  bool operator==(const RingScore&) const = default;
};
RingScore score_ring(const LinkMatrix& matrix, std::span<const PeerId> ring);

// Noise must not make the order flap: a new one has to promise `percent` more bandwidth, or `percent` less
// latency (worth mentioning) at about the same bandwidth.
bool should_adopt(const RingScore& current, const RingScore& proposed, std::uint32_t percent = 10);

// What the cost model needs to know about a group: its slowest links, by the ring order in use. `hosts[i]`
// names the host of ring[i]; empty where hosts are not known. What nobody measured stays 0.
GroupPaths summarise_paths(const LinkMatrix& matrix, std::uint32_t group, std::span<const PeerId> ring,
                           std::span<const std::uint32_t> hosts = {});

}  // namespace pccl
