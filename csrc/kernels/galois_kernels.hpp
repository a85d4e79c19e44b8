#pragma once
// The Galois-field kernels as templates over an instruction set `Isa`, which beside what lanes.hpp says has a
// Factor: made from a number, it multiplies a register of bytes by it; Packed, the form in which numbers wait
// in memory to become Factors, and `every` one of them; and `sums`, how many registers of sums fit beside
// what a loop needs. Unnamed namespace: see lanes.hpp.

#include "kernels/galois_encode.hpp"
#include "kernels/galois_table.hpp"
#include "kernels/reduce_kernels.hpp"

namespace pccl::kernels {
namespace {

// c * 2^i, which is all that a multiplication by c needs to know.
struct Doublings {
  constexpr explicit Doublings(std::uint8_t c) {
    for (std::uint8_t& item : at) {
      item = c;
      c = galois_double(c);
    }
  }
  std::uint8_t at[8] = {};
};

// Products of c with the 16 numbers that a half of a byte can mean: the low half, or the high one.
struct HalfByteProducts {
  constexpr HalfByteProducts() = default;
  constexpr explicit HalfByteProducts(std::uint8_t c) {
    const Doublings doublings(c);
    for (int i = 1; i < 16; ++i) {
      const int lowest = __builtin_ctz(static_cast<unsigned>(i));
      low[i] = low[i & (i - 1)] ^ doublings.at[lowest];
      high[i] = high[i & (i - 1)] ^ doublings.at[lowest + 4];
    }
  }
  alignas(16) std::uint8_t low[16] = {};
  alignas(16) std::uint8_t high[16] = {};
};

// One Packed for each number.
template <class Packed> struct EveryFactor {
  constexpr EveryFactor() {
    for (unsigned c = 0; c < 256; ++c) of[c] = Packed(static_cast<std::uint8_t>(c));
  }
  Packed of[256] = {};
};

template <class Isa, class T> struct GaloisAdd {
  using R = ByteRegister<Isa>;
  static constexpr bool reads_own = true;
  explicit GaloisAdd(const Job&) {}
  [[gnu::always_inline]] R operator()(R incoming, R own) const { return incoming ^ own; }
};

template <class Isa, class T> struct GaloisMultiplyAdd {
  using R = ByteRegister<Isa>;
  static constexpr bool reads_own = true;
  explicit GaloisMultiplyAdd(const Job& job) : factor(Isa::every.of[job.own_factor]) {}
  [[gnu::always_inline]] R operator()(R incoming, R own) const { return incoming ^ factor.times(own); }
  typename Isa::Factor factor;
};

template <class Isa, class T> struct GaloisMix {
  using R = ByteRegister<Isa>;
  static constexpr bool reads_own = true;
  explicit GaloisMix(const Job& job)
      : one(Isa::every.of[job.incoming_factor]), other(Isa::every.of[job.own_factor]) {}
  [[gnu::always_inline]] R operator()(R incoming, R own) const {
    return one.times(incoming) ^ other.times(own);
  }
  typename Isa::Factor one, other;
};

template <class Isa, class T> struct GaloisMultiply {
  using R = ByteRegister<Isa>;
  static constexpr bool reads_own = false;
  explicit GaloisMultiply(const Job& job) : factor(Isa::every.of[job.incoming_factor]) {}
  [[gnu::always_inline]] R operator()(R incoming) const { return factor.times(incoming); }
  typename Isa::Factor factor;
};

template <class Isa> constexpr GaloisTable make_galois(GaloisLevel level) {
  using Bytes = Plain<std::uint8_t>;
  return {
      .level = level,
      .add = Pass<Isa, Bytes, Bytes, Bytes, GaloisAdd>::run,
      .multiply_add = Pass<Isa, Bytes, Bytes, Bytes, GaloisMultiplyAdd>::run,
      .mix = Pass<Isa, Bytes, Bytes, Bytes, GaloisMix>::run,
      .multiply = Pass<Isa, Bytes, Bytes, Bytes, GaloisMultiply>::run,
      .encode = encode<Isa>,
  };
}

}  // namespace
}  // namespace pccl::kernels
