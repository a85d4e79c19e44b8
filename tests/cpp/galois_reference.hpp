#pragma once
// GF(2^8) as polynomials, slowly; matrices over it. For test_galois.cpp and test_coded_operations.cpp.

#include <cstdint>
#include <utility>
#include <vector>

namespace pccl::galois_check {

// The product of two polynomials over GF(2), and what a division by 0x11d leaves of it.
inline std::uint8_t slow_product(unsigned a, unsigned b) {
  unsigned product = 0;
  for (int bit = 0; bit < 8; ++bit) {
    if ((b >> bit & 1) != 0) product ^= a << bit;
  }
  for (int bit = 14; bit >= 8; --bit) {
    if ((product >> bit & 1) != 0) product ^= 0x11du << (bit - 8);
  }
  return static_cast<std::uint8_t>(product);
}

inline std::uint8_t slow_inverse(unsigned a) {
  for (unsigned b = 1; b < 256; ++b) {
    if (slow_product(a, b) == 1) return static_cast<std::uint8_t>(b);
  }
  return 0;
}

using Matrix = std::vector<std::vector<std::uint8_t>>;

// 1 / (x_row + y_column) with all x and y different: every square part of it can be inverted.
inline Matrix cauchy(std::uint32_t rows, std::uint32_t columns) {
  Matrix matrix(rows, std::vector<std::uint8_t>(columns));
  for (std::uint32_t row = 0; row < rows; ++row) {
    for (std::uint32_t column = 0; column < columns; ++column) {
      matrix[row][column] = slow_inverse(row ^ (rows + column));
    }
  }
  return matrix;
}

// Gauss and Jordan; the matrix must be regular.
inline Matrix inverted(Matrix matrix) {
  const std::size_t size = matrix.size();
  Matrix result(size, std::vector<std::uint8_t>(size));
  for (std::size_t i = 0; i < size; ++i) result[i][i] = 1;
  for (std::size_t column = 0; column < size; ++column) {
    std::size_t pivot = column;
    while (matrix[pivot][column] == 0) ++pivot;
    std::swap(matrix[pivot], matrix[column]);
    std::swap(result[pivot], result[column]);
    const auto scale = slow_inverse(matrix[column][column]);
    for (auto* side : {&matrix, &result}) {
      for (auto& item : (*side)[column]) item = slow_product(item, scale);
    }
    for (std::size_t row = 0; row < size; ++row) {
      const auto factor = row == column ? std::uint8_t{0} : matrix[row][column];
      for (auto* side : {&matrix, &result}) {
        for (std::size_t i = 0; i < size; ++i) (*side)[row][i] ^= slow_product(factor, (*side)[column][i]);
      }
    }
  }
  return result;
}

}  // namespace pccl::galois_check
