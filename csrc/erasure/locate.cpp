// Which blocks are wrong, from what the checks of one byte of each give: Prony's method over the field
// (Peterson, Gorenstein and Zierler). Sums become power sums of the points of the wrong blocks.
#include <algorithm>

#include "erasure/code.hpp"
#include "kernels/galois.hpp"

namespace pccl::erasure {

namespace {

using kernels::galois_inverse;
using kernels::galois_multiply;
using Numbers = std::vector<std::uint8_t>;

std::uint8_t point(const Code& code, std::uint32_t block) {
  return static_cast<std::uint8_t>(block < code.data ? 255 - block : block - code.data);
}

// sum over wrong blocks of (some factor that is not 0) * point^l, for l = 0 to m - 1. The code is a
// generalized Reed-Solomon code; these are its classical syndromes of the word (0, sums), which is as wrong
// as what was read.
Numbers power_sums(const Code& code, std::span<const std::uint8_t> sums) {
  Numbers powers(code.parity);
  for (std::uint32_t i = 0; i < code.parity; ++i) {
    std::uint8_t below =
        galois_multiply(static_cast<std::uint8_t>(i ^ 255), galois_inverse(255));  // row scale
    for (std::uint32_t l = 0; l < code.parity; ++l)
      if (l != i) below = galois_multiply(below, static_cast<std::uint8_t>(i ^ l));
    auto term = galois_multiply(sums[i], galois_inverse(below));
    for (auto& power : powers) {
      power ^= term;
      term = galois_multiply(term, static_cast<std::uint8_t>(i));
    }
  }
  return powers;
}

// The monic polynomial of degree `count` whose recurrence the power sums follow; coefficients from the
// lowest, less the leading one. Empty: there is none, or more than one.
Numbers recurrence(const Numbers& powers, std::size_t count) {
  const std::size_t equations = powers.size() - count;
  Matrix system(equations, count + 1);
  for (std::size_t row = 0; row < equations; ++row)
    for (std::size_t i = 0; i <= count; ++i) system.at(row, i) = powers[row + i];
  for (std::size_t column = 0; column < count; ++column) {
    std::size_t pivot = column;
    while (pivot < equations && system.at(pivot, column) == 0) ++pivot;
    if (pivot >= equations) return {};
    std::ranges::swap_ranges(system.row(pivot), system.row(column));
    const auto scale = galois_inverse(system.at(column, column));
    for (auto& item : system.row(column)) item = galois_multiply(item, scale);
    for (std::size_t row = 0; row < equations; ++row) {
      const auto factor = row == column ? std::uint8_t{0} : system.at(row, column);
      for (std::size_t i = 0; factor != 0 && i <= count; ++i)
        system.at(row, i) ^= galois_multiply(factor, system.at(column, i));
    }
  }
  for (std::size_t row = count; row < equations; ++row)
    if (system.at(row, count) != 0) return {};
  Numbers found(count);
  for (std::size_t i = 0; i < count; ++i) found[i] = system.at(i, count);
  return found;
}

std::vector<std::uint32_t> roots(const Code& code, const Numbers& polynomial) {
  std::vector<std::uint32_t> blocks;
  for (std::uint32_t block = 0; block < code.blocks(); ++block) {
    std::uint8_t value = 1;
    for (std::size_t i = polynomial.size(); i-- > 0;)
      value = galois_multiply(value, point(code, block)) ^ polynomial[i];
    if (value == 0) blocks.push_back(block);
  }
  return blocks;
}

}  // namespace

std::vector<std::uint32_t> locate(const Code& code, std::span<const std::uint8_t> sums) {
  const Numbers powers = power_sums(code, sums);
  for (std::size_t count = 1; 2 * count <= code.parity; ++count) {
    const Numbers polynomial = recurrence(powers, count);
    if (polynomial.empty()) continue;
    auto blocks = roots(code, polynomial);
    return blocks.size() == count ? blocks : std::vector<std::uint32_t>{};
  }
  return {};
}

}  // namespace pccl::erasure
