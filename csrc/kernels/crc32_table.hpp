#pragma once
// The CRC-32 kernels that each instruction set fills, and the polynomial arithmetic behind them. Between
// crc32.cpp and crc32_*.cpp only. A polynomial over GF(2) below degree 32 is a number whose highest bit is
// the coefficient of x^0.

#include <cstddef>

#include "kernels/crc32.hpp"

namespace pccl::kernels {

// Kernels work on the register: the complement of a CRC.
struct Crc32Table {
  Crc32Level level;
  std::uint32_t (*update)(std::uint32_t state, const std::byte* at, std::size_t bytes);
  std::uint32_t (*copy)(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t bytes);
  // Past the caches, never fenced; `to` is a multiple of 64.
  std::uint32_t (*stream)(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t bytes);
};

const Crc32Table& scalar_crc32(Crc32Polynomial polynomial);
#if defined(__x86_64__)
const Crc32Table& pclmul_crc32(Crc32Polynomial polynomial);
const Crc32Table& vpclmul_crc32(Crc32Polynomial polynomial);
#elif defined(__aarch64__)
const Crc32Table& armv8_crc32(Crc32Polynomial polynomial);
#endif

namespace crc32_math {

inline constexpr std::uint32_t one = 0x80000000;

// always_inline: it is called where code is compiled for newer CPUs (see half.hpp).
[[gnu::always_inline]] constexpr std::uint32_t times_x(Crc32Polynomial polynomial, std::uint32_t a) {
  return (a >> 1) ^ ((a & 1) != 0 ? static_cast<std::uint32_t>(polynomial) : 0);
}

[[gnu::always_inline]] constexpr std::uint32_t product(Crc32Polynomial polynomial, std::uint32_t a,
                                                       std::uint32_t b) {
  std::uint32_t sum = 0;
  for (; a != 0; a <<= 1, b = times_x(polynomial, b)) sum ^= (a & one) != 0 ? b : 0;
  return sum;
}

[[gnu::always_inline]] constexpr std::uint32_t power_of_x(Crc32Polynomial polynomial,
                                                          std::uint64_t exponent) {
  std::uint32_t result = one;
  for (auto square = times_x(polynomial, one); exponent != 0; exponent >>= 1) {
    if ((exponent & 1) != 0) result = product(polynomial, result, square);
    square = product(polynomial, square, square);
  }
  return result;
}

// Multiplying by this without carries moves 64 bits `distance` bits towards the front. The product of two
// mirrored numbers lies one bit too low, hence the - 1.
consteval std::uint64_t fold_factor(Crc32Polynomial polynomial, std::uint64_t distance) {
  return std::uint64_t{power_of_x(polynomial, distance - 1)} << 32;
}

}  // namespace crc32_math
}  // namespace pccl::kernels
