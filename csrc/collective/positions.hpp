// Arithmetic on the positions of a world, which all plans share: around the ring, and among the others.
#pragma once
#include <cstdint>

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

}  // namespace pccl
