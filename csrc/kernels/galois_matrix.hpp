#pragma once
// Multiplication by a number as an 8 x 8 matrix of bits, as GFNI takes it: byte 7 - i is row i, and bit j of
// row i is bit i of c * 2^j. For galois_*_gfni.cpp. Unnamed namespace: see lanes.hpp.

#include "kernels/galois_kernels.hpp"

namespace pccl::kernels {
namespace {

struct BitMatrix {
  constexpr BitMatrix() = default;
  constexpr explicit BitMatrix(std::uint8_t c) {
    const Doublings doublings(c);
    for (int row = 0; row < 8; ++row) {
      for (int column = 0; column < 8; ++column) {
        const std::uint64_t bit = doublings.at[column] >> row & 1;
        matrix |= bit << (8 * (7 - row) + column);
      }
    }
  }
  std::uint64_t matrix = 0;
};

}  // namespace
}  // namespace pccl::kernels
