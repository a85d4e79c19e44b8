#pragma once
// CRC-32 through tables, 8 bytes at a time: the portable kernel, and the few bytes that wider kernels leave.
// Unnamed namespace: see lanes.hpp.

#include <array>
#include <cstring>

#include "kernels/crc32_table.hpp"

namespace pccl::kernels {
namespace {

// of[k][b]: the register after byte b and k zero bytes.
struct Crc32Bytes {
  std::array<std::array<std::uint32_t, 256>, 8> of{};
  constexpr explicit Crc32Bytes(Crc32Polynomial polynomial) {
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      auto state = byte;
      for (int bit = 0; bit < 8; ++bit) state = crc32_math::times_x(polynomial, state);
      of[0][byte] = state;
    }
    for (std::size_t k = 1; k < of.size(); ++k)
      for (std::size_t byte = 0; byte < 256; ++byte)
        of[k][byte] = (of[k - 1][byte] >> 8) ^ of[0][of[k - 1][byte] & 255];
  }
};
template <Crc32Polynomial polynomial> constexpr Crc32Bytes crc32_bytes{polynomial};

template <Crc32Polynomial polynomial>
[[gnu::always_inline]] inline std::uint32_t after_word(std::uint32_t state, std::uint64_t word) {
  const auto& of = crc32_bytes<polynomial>.of;
  word ^= state;
  return of[7][word & 255] ^ of[6][word >> 8 & 255] ^ of[5][word >> 16 & 255] ^ of[4][word >> 24 & 255] ^
         of[3][word >> 32 & 255] ^ of[2][word >> 40 & 255] ^ of[1][word >> 48 & 255] ^ of[0][word >> 56];
}

[[gnu::always_inline]] inline std::uint64_t little_word(const std::byte* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);  // every machine that this is built for is little-endian
  return word;
}

template <Crc32Polynomial polynomial>
std::uint32_t update_by_tables(std::uint32_t state, const std::byte* at, std::size_t bytes) {
  const auto& of = crc32_bytes<polynomial>.of;
  for (; bytes >= 8; at += 8, bytes -= 8) state = after_word<polynomial>(state, little_word(at));
  for (; bytes > 0; ++at, --bytes)
    state = (state >> 8) ^ of[0][(state ^ std::to_integer<std::uint32_t>(*at)) & 255];
  return state;
}

// Copies first, piece by piece through the first-level cache, then sums the copy: so that the sum is that of
// `to` whatever happens to `from`.
template <class Update>
[[gnu::always_inline]] inline std::uint32_t copy_in_pieces(std::uint32_t state, std::byte* to,
                                                           const std::byte* from, std::size_t bytes,
                                                           Update update) {
  constexpr std::size_t piece_bytes = 8192;
  while (bytes > 0) {
    const std::size_t piece = bytes < piece_bytes ? bytes : piece_bytes;
    std::memcpy(to, from, piece);
    state = update(state, to, piece);
    to += piece;
    from += piece;
    bytes -= piece;
  }
  return state;
}

// The tables of both polynomials, of an Of<polynomial> with the functions of Crc32Table.
template <template <Crc32Polynomial> class Of, Crc32Level level>
[[gnu::always_inline]] inline const Crc32Table& table_of(Crc32Polynomial polynomial) {
  using Ieee = Of<Crc32Polynomial::ieee>;
  using Castagnoli = Of<Crc32Polynomial::castagnoli>;
  static constexpr Crc32Table ieee{level, Ieee::update, Ieee::copy, Ieee::stream};
  static constexpr Crc32Table castagnoli{level, Castagnoli::update, Castagnoli::copy, Castagnoli::stream};
  return polynomial == Crc32Polynomial::ieee ? ieee : castagnoli;
}

}  // namespace
}  // namespace pccl::kernels
