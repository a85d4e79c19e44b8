// Coefficients, inversion, and how lost blocks come from others.
#include <algorithm>

#include "erasure/code.hpp"
#include "kernels/galois.hpp"

namespace pccl::erasure {

namespace {

using kernels::galois_inverse;
using kernels::galois_multiply;

void add_row(std::span<std::uint8_t> to, std::span<const std::uint8_t> from, std::uint8_t factor) {
  if (factor == 0) return;
  for (std::size_t i = 0; i < to.size(); ++i) to[i] ^= galois_multiply(from[i], factor);
}

void scale_row(std::span<std::uint8_t> row, std::uint8_t factor) {
  for (auto& item : row) item = galois_multiply(item, factor);
}

// Lost data from present data and as many parities: parity - what present data give = square * lost.
void rebuild_data(std::span<const std::uint32_t> read, std::span<const std::uint32_t> rows,
                  std::span<const std::uint32_t> lost, std::size_t data_read, Matrix& to) {
  Matrix square(lost.size(), lost.size());
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t j = 0; j < lost.size(); ++j) square.at(i, j) = coefficient(rows[i], lost[j]);
  const Matrix inverse = inverted(square);
  for (std::size_t l = 0; l < lost.size(); ++l) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto factor = inverse.at(l, i);
      to.at(l, data_read + i) = factor;
      for (std::size_t j = 0; j < data_read; ++j)
        to.at(l, j) ^= galois_multiply(factor, coefficient(rows[i], read[j]));
    }
  }
}

}  // namespace

std::uint8_t coefficient(std::uint32_t row, std::uint32_t slot) {
  const auto x = static_cast<std::uint8_t>(row), y = static_cast<std::uint8_t>(255 - slot);
  const std::uint8_t first = 255;  // the point of slot 0
  const auto above = galois_multiply(y, x ^ first), below = galois_multiply(first, x ^ y);
  return galois_multiply(above, galois_inverse(below));
}

Matrix parity_rows(const Code& code) {
  Matrix rows(code.parity, code.data);
  for (std::uint32_t i = 0; i < code.parity; ++i)
    for (std::uint32_t j = 0; j < code.data; ++j) rows.at(i, j) = coefficient(i, j);
  return rows;
}

Matrix inverted(Matrix matrix) {
  const std::size_t size = matrix.rows();
  Matrix result(size, size);
  for (std::size_t i = 0; i < size; ++i) result.at(i, i) = 1;
  for (std::size_t column = 0; column < size; ++column) {
    std::size_t pivot = column;
    while (pivot + 1 < size && matrix.at(pivot, column) == 0) ++pivot;
    std::ranges::swap_ranges(matrix.row(pivot), matrix.row(column));
    std::ranges::swap_ranges(result.row(pivot), result.row(column));
    const auto scale = galois_inverse(matrix.at(column, column));
    scale_row(matrix.row(column), scale);
    scale_row(result.row(column), scale);
    for (std::size_t row = 0; row < size; ++row) {
      const auto factor = row == column ? std::uint8_t{0} : matrix.at(row, column);
      add_row(matrix.row(row), matrix.row(column), factor);
      add_row(result.row(row), result.row(column), factor);
    }
  }
  return result;
}

Recipe recipe(const Code& code, std::span<const std::uint32_t> present, std::span<const std::uint32_t> lost) {
  if (present.size() < code.data) return {};
  Recipe found;
  found.read.assign(present.begin(), present.begin() + code.data);  // sorted: data come first
  const auto data_read = static_cast<std::size_t>(
      std::ranges::count_if(found.read, [&](std::uint32_t block) { return block < code.data; }));
  std::vector<std::uint32_t> gone, rows;  // data that are not read, parity rows that are
  for (std::uint32_t slot = 0; slot < code.data; ++slot)
    if (!std::ranges::binary_search(found.read, slot)) gone.push_back(slot);
  for (std::size_t i = data_read; i < found.read.size(); ++i) rows.push_back(found.read[i] - code.data);
  Matrix of_gone(gone.size(), code.data);
  if (!gone.empty()) rebuild_data(found.read, rows, gone, data_read, of_gone);
  found.factors = Matrix(lost.size(), code.data);
  for (std::size_t l = 0; l < lost.size(); ++l) {
    const auto row = found.factors.row(l);
    const bool parity = lost[l] >= code.data;
    for (std::size_t g = 0; g < gone.size(); ++g) {
      const auto share = parity ? coefficient(lost[l] - code.data, gone[g]) : gone[g] == lost[l];
      add_row(row, of_gone.row(g), static_cast<std::uint8_t>(share));
    }
    for (std::size_t j = 0; parity && j < data_read; ++j)
      row[j] ^= coefficient(lost[l] - code.data, found.read[j]);
  }
  return found;
}

Matrix checks(const Code& code, std::span<const std::uint32_t> wrong) {
  Matrix all(code.parity, code.blocks());
  for (std::uint32_t i = 0; i < code.parity; ++i) {
    for (std::uint32_t j = 0; j < code.data; ++j) all.at(i, j) = coefficient(i, j);
    all.at(i, code.data + i) = 1;
  }
  std::size_t used = 0;  // rows that were spent on making a column 0 in all others
  for (const std::uint32_t block : wrong) {
    std::size_t pivot = used;
    while (pivot < all.rows() && all.at(pivot, block) == 0) ++pivot;
    if (pivot >= all.rows()) continue;
    std::ranges::swap_ranges(all.row(pivot), all.row(used));
    const auto scale = galois_inverse(all.at(used, block));
    for (std::size_t row = used + 1; row < all.rows(); ++row)
      add_row(all.row(row), all.row(used), galois_multiply(all.at(row, block), scale));
    ++used;
  }
  Matrix rest(all.rows() - used, code.blocks());
  for (std::size_t row = used; row < all.rows(); ++row)
    std::ranges::copy(all.row(row), rest.row(row - used).begin());
  return rest;
}

}  // namespace pccl::erasure
