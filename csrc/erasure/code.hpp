// The numbers of the code: systematic Reed-Solomon over GF(2^8) from a Cauchy matrix. Pure arithmetic.
//
// Slot j of the data stands at the point 255 - j of the field, parity row i at the point i: all different
// while k + m <= 256. The coefficient of slot j in row i is 1 / (x_i + y_j), with columns and then rows
// scaled such that row 0 and column 0 are ones: the first parity is the exclusive or. It depends on i and j
// alone, so the rows of a code with fewer parities are the first rows of one with more, and slots may be
// added.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace pccl::erasure {

inline constexpr std::uint32_t blocks_max = 256;  // of one stripe: the numbers of the field

// Blocks of a stripe are numbered: data 0 to k - 1, then parities k to k + m - 1.
struct Code {
  std::uint32_t data = 1;    // k
  std::uint32_t parity = 0;  // m
  std::uint32_t blocks() const { return data + parity; }
};

std::uint8_t coefficient(std::uint32_t row, std::uint32_t slot);

// A matrix over the field.
class Matrix {
 public:
  Matrix(std::size_t rows, std::size_t columns) : columns_(columns), items_(rows * columns) {}
  std::size_t rows() const { return columns_ == 0 ? 0 : items_.size() / columns_; }
  std::size_t columns() const { return columns_; }
  std::uint8_t& at(std::size_t row, std::size_t column) { return items_[row * columns_ + column]; }
  std::uint8_t at(std::size_t row, std::size_t column) const { return items_[row * columns_ + column]; }
  const std::uint8_t* items() const { return items_.data(); }
  std::span<std::uint8_t> row(std::size_t row) { return {items_.data() + row * columns_, columns_}; }

 private:
  std::size_t columns_;
  std::vector<std::uint8_t> items_;
};

// Row i: the coefficients of parity i.
Matrix parity_rows(const Code& code);

// Of a square matrix; all of a Cauchy matrix that this library inverts are regular.
Matrix inverted(Matrix matrix);

// Which blocks are read to rebuild others, and the factors: rebuilt[i] = sum of factors.at(i, j) * read[j].
struct Recipe {
  std::vector<std::uint32_t> read;
  Matrix factors{0, 0};
};

// `present`: any k blocks or more, of which data are preferred and then the first parities. `lost`: blocks to
// rebuild, none of them present. All sorted, without repetitions and below k + m. Empty `read`: too few.
Recipe recipe(const Code& code, std::span<const std::uint32_t> present, std::span<const std::uint32_t> lost);

// Multiplies at least one side of every equation that all stripes without damage fulfil: checks.at(i, j) *
// block j, summed over j, is 0. With `wrong` blocks named, what is in them does not matter: m - |wrong| rows.
Matrix checks(const Code& code, std::span<const std::uint32_t> wrong);

// The blocks whose damage explains these m sums (of checks without names), if at most m / 2 can do; of one
// byte of each block. Empty: more are wrong.
std::vector<std::uint32_t> locate(const Code& code, std::span<const std::uint8_t> sums);

}  // namespace pccl::erasure
