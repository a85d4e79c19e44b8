#pragma once
// Arithmetic of GF(2^8), modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d): what parities of erasure codes are made
// of. A byte is an element; adding is exclusive or. Pure functions over caller-owned memory, callable from
// any thread; every instruction set gives the same bits.

#include <cstddef>
#include <cstdint>
#include <span>

namespace pccl::kernels {

// always_inline: it is called where code is compiled for newer CPUs (see half.hpp).
[[gnu::always_inline]] constexpr std::uint8_t galois_double(std::uint8_t a) {
  return static_cast<std::uint8_t>((a << 1) ^ ((a >> 7) * 0x1d));
}

constexpr std::uint8_t galois_multiply(std::uint8_t a, std::uint8_t b) {
  std::uint8_t product = 0;
  for (; b != 0; b >>= 1, a = galois_double(a)) product ^= (b & 1) != 0 ? a : std::uint8_t{0};
  return product;
}

// a^254; of 0, which has none: 0.
constexpr std::uint8_t galois_inverse(std::uint8_t a) {
  std::uint8_t power = a, result = 1;
  for (int bit = 1; bit < 8; ++bit) {
    power = galois_multiply(power, power);
    result = galois_multiply(result, power);
  }
  return result;
}

// The scalar and NEON sets are of their architectures' baselines.
enum class GaloisLevel : std::uint8_t { scalar, neon, avx2, avx512, avx2_gfni, avx512_gfni };
inline constexpr GaloisLevel all_galois_levels[] = {GaloisLevel::scalar,    GaloisLevel::neon,
                                                    GaloisLevel::avx2,      GaloisLevel::avx512,
                                                    GaloisLevel::avx2_gfni, GaloisLevel::avx512_gfni};

// out = incoming_factor * incoming + own_factor * own. Buffers may have any address. `out` may be exactly
// `incoming` or exactly `own`; nothing else may overlap. An operand whose factor is 0 is not read.
struct GaloisArgs {
  void* out = nullptr;
  const void* incoming = nullptr;
  const void* own = nullptr;
  std::size_t bytes = 0;
  std::uint8_t incoming_factor = 1;
  std::uint8_t own_factor = 1;
  bool streaming = false;  // as in ReduceArgs
};

// Sums of products, many at once: targets[t] = sum over s of factors[t * sources.size() + s] * sources[s],
// each of `bytes`; with `adds` onto what the targets hold. Any addresses; targets overlap nothing else.
// `streaming` has its effect where all targets lie alike within 64 bytes.
struct GaloisEncodeArgs {
  std::span<std::byte* const> targets;
  std::span<const std::byte* const> sources;
  const std::uint8_t* factors = nullptr;
  std::size_t bytes = 0;
  bool streaming = false;
  bool adds = false;
};

struct GaloisTable;  // kernels/galois_table.hpp

class GaloisSet {
 public:
  explicit constexpr GaloisSet(const GaloisTable& table) : table_(&table) {}
  GaloisLevel level() const;
  void combine(const GaloisArgs& args) const;
  // Reads each source once for every six targets.
  void encode(const GaloisEncodeArgs& args) const;

 private:
  const GaloisTable* table_;
};

// The fastest set that this CPU runs.
const GaloisSet& best_galois();

// A given level; nullptr if the CPU or the build lacks it. For tests and measurements.
const GaloisSet* galois_at(GaloisLevel level);

}  // namespace pccl::kernels
