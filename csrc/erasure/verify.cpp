// Which blocks of a stripe are wrong.
#include <algorithm>
#include <set>

#include "erasure/ranges.hpp"
#include "erasure/reed_solomon.hpp"

namespace pccl::erasure {

namespace {

constexpr std::size_t tile_bytes = 16 << 10;  // so that the sums of a tile stay in the second-level cache

// What the checks of one byte of each block give.
std::vector<std::uint8_t> sums_at(const Matrix& checks, Read blocks, std::size_t at) {
  std::vector<std::uint8_t> sums(checks.rows());
  for (std::size_t row = 0; row < sums.size(); ++row)
    for (std::size_t block = 0; block < blocks.size(); ++block)
      sums[row] ^=
          kernels::galois_multiply(checks.at(row, block), std::to_integer<std::uint8_t>(blocks[block][at]));
  return sums;
}

// The checks of a tile, on as many bytes at a time as a register has.
class Tile {
 public:
  Tile(const kernels::GaloisSet& set, std::size_t rows) : set_(set), sums_(rows * tile_bytes) {}
  // The first byte from `at` on at which a check is not 0, or `at + count`.
  std::size_t first_wrong(const Matrix& checks, Read blocks, std::size_t at, std::size_t count) {
    std::vector<std::byte*> targets;
    std::vector<const std::byte*> sources;
    for (std::size_t row = 0; row < checks.rows(); ++row) targets.push_back(sums_.data() + row * tile_bytes);
    for (const std::byte* block : blocks) sources.push_back(block + at);
    set_.encode({targets, sources, checks.items(), count, false, false});
    std::size_t first = count;
    for (const std::byte* row : targets) {
      const auto not_zero = [](std::byte sum) { return sum != std::byte{0}; };
      first = std::min(first, std::size_t(std::find_if(row, row + first, not_zero) - row));
    }
    return at + first;
  }

 private:
  const kernels::GaloisSet& set_;
  std::vector<std::byte> sums_;
};

}  // namespace

// Nothing: more than m / 2 blocks are wrong. Checks that leave out the wrong ones found so far show whether
// there are others; of m / 2 of them the rest still tells every other one.
std::optional<std::vector<std::uint32_t>> ReedSolomon::wrong_in(Read blocks, std::size_t first,
                                                                std::size_t count) const {
  const Matrix all = checks(code_, {});
  Tile tile(*set_, all.rows());
  std::set<std::uint32_t> wrong;
  Matrix left = all;
  for (std::size_t at = first; at < first + count;) {
    const std::size_t bytes = std::min(tile_bytes, first + count - at);
    const std::size_t found = tile.first_wrong(left, blocks, at, bytes);
    if (found == at + bytes) {
      at = found;
      continue;
    }
    const std::size_t before = wrong.size();
    for (const std::uint32_t block : locate(code_, sums_at(all, blocks, found))) wrong.insert(block);
    if (wrong.size() == before || 2 * wrong.size() > code_.parity) return std::nullopt;
    left = checks(code_, std::vector(wrong.begin(), wrong.end()));
    at = found;
  }
  return std::vector(wrong.begin(), wrong.end());
}

Verdict ReedSolomon::verify(Read blocks, std::size_t bytes, std::size_t threads) const {
  std::vector<std::optional<std::vector<std::uint32_t>>> parts(std::max<std::size_t>(threads, 1));
  for_ranges(bytes, threads, [&](std::size_t part, std::size_t first, std::size_t count) {
    parts[part] = wrong_in(blocks, first, count);
  });
  parts.resize((bytes + range_bytes(bytes, threads) - 1) / range_bytes(bytes, threads));
  std::set<std::uint32_t> wrong;
  for (const auto& part : parts) {
    if (!part) return {false, std::nullopt};
    wrong.insert(part->begin(), part->end());
  }
  if (2 * wrong.size() > code_.parity && !wrong.empty()) return {false, std::nullopt};
  return {wrong.empty(), std::vector(wrong.begin(), wrong.end())};
}

}  // namespace pccl::erasure
