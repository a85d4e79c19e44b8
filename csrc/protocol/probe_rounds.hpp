// Who measures a link with whom at the same time: rounds of pairs that have no peer in common, so that probes
// disturb each other no more than needed. Pure.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace pccl {

// Rounds until everybody has met everybody: positions 0 to peers - 1.
constexpr std::uint32_t probe_rounds(std::uint32_t peers) {
  return peers < 2 ? 0 : peers % 2 == 0 ? peers - 1 : peers;
}

// The circle method of tournaments: one place stands still, the others go round.
inline std::vector<std::pair<std::uint32_t, std::uint32_t>> probe_pairs(std::uint32_t peers,
                                                                        std::uint32_t round) {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> pairs;
  const auto rounds = probe_rounds(peers);  // also the number of places that go round
  if (round >= rounds) return pairs;
  const auto add = [&](std::uint32_t a, std::uint32_t b) {
    if (a < peers && b < peers) pairs.emplace_back(std::min(a, b), std::max(a, b));
  };
  add(rounds, round);  // of an odd number of peers, whoever meets this place has a break
  for (std::uint32_t i = 1; i <= (rounds - 1) / 2; ++i)
    add((round + i) % rounds, (round + rounds - i) % rounds);
  return pairs;
}

}  // namespace pccl
