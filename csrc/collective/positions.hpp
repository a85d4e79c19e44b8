// Arithmetic on the positions of a world, which all plans share: around the ring, and among the others.
#pragma once
#include <cstdint>

#include "collective/plan.hpp"

namespace pccl {

// So many steps before a position in the ring.
inline std::uint32_t back(std::uint32_t position, std::uint32_t steps, std::uint32_t world) {
  return (position + world - steps % world) % world;
}

// Where `other` comes among all positions but `self`.
inline std::uint16_t place(std::uint32_t other, std::uint32_t self) {
  return std::uint16_t(other < self ? other : other - 1);
}

template <class F> void each_other(std::uint32_t world, std::uint32_t self, F f) {
  for (std::uint32_t other = 0; other < world; ++other)
    if (other != self) f(other);
}

// On a full mesh: everybody gets the weight of everybody, as hidden segments behind the others. `first(p)`:
// the number of the first of these steps at position p, which has `world` of them.
template <class First> void gather_weights_directly(Plan& plan, First first) {
  const auto self = plan.position;
  Step own{.segment = plan.segments + self, .merge = Merge::own, .write = true};
  each_other(plan.world, self, [&](std::uint32_t to) {
    own.to.push_back({to, std::uint16_t(first(to) + 1 + place(self, to))});
  });
  plan.steps.push_back(std::move(own));
  each_other(plan.world, self, [&](std::uint32_t from) {
    plan.steps.push_back({.segment = plan.segments + from,
                          .merge = Merge::replace,
                          .from = std::int32_t(from),
                          .write = true});
  });
}

}  // namespace pccl
