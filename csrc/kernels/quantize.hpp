#pragma once
// The block-wise quantization codec: floating-point elements <-> few bits each. Pure functions over
// caller-owned memory, callable from any thread; every instruction set gives the same bits, for codes and for
// decoded values, whatever the calling thread's flush-to-zero and rounding modes are.
//
// An encoding is a sequence of blocks, each a header and then the codes of its elements; the last block may
// be short, nothing is padded, all is little-endian, any address will do. So whole blocks may be cut off, and
// encodings of whole blocks be joined, at will. Real is float64 for float64 elements and float32 for others.
//
// * int8: Real scale; codes of 8 bits, two's complement. code * scale; the quantum is the scale, R/254.
// * uint8: Real minimum, Real scale; codes of 8 bits, unsigned. minimum + code * scale; quantum R/255.
// * int4: scale (bfloat16; float64 for float64 elements); codes of 4 bits, two's complement, element 2i in
//   the low half of byte i. code * scale; quantum R/14 * (1 + 2^-7) at most, as bfloat16 is rounded up.
// * fp8: Real scale; codes of 8 bits, e4m3 (OCP). code * scale; the quantum goes with the size, R/28 at most.
// * bf16: no header; codes of 16 bits, bfloat16. The quantum is 2^-7 of the element's power of two.
//
// R is 2 * the largest magnitude of the block (uint8: largest - smallest). A scale is the nearest Real, one
// step up where that would not reach the largest magnitude, one down where the extremes would not decode to
// finite values; so no quantum exceeds its share of R by more than the smallest number of the scale's format.
// Scales of 8-bit kinds have no 16 bits: rounded up, they would cost up to 2^-7 of a quantum more error, and
// save 0.8 % of the bytes. With int4 they save 6 %.
//
// One encode and decode is off by at most half a quantum (a whole one if stochastic, and for bf16 beyond its
// largest finite value), plus what the arithmetic rounds: 2^-13 of a quantum, and half a unit in the last
// place of the decoded value. A mean of any number of such contributions, encoded once more, is off by at
// most one quantum of the largest R among them (two if stochastic). Largest finite values stay finite. Equal
// elements are exact in uint8 (a zero loses its sign).

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/dtype.hpp"
#include "base/quantization.hpp"
#include "kernels/reduce.hpp"

namespace pccl::kernels {

// Elements that share a scale: a multiple of 32, which is whole registers. Blocks live on the stack.
inline constexpr std::uint32_t quantization_block_max = 1024;

struct BlockCode {
  Quantization kind = Quantization::int8;
  std::uint32_t block = 256;  // ignored for bf16
  bool stochastic = false;    // unbiased instead of to nearest even
};

constexpr std::uint32_t default_block(Quantization kind) { return kind == Quantization::int4 ? 64 : 256; }

// What stochastic rounding depends on, beside the values: the same draw gives the same bits. Give every
// contribution (run, operation, owner) a seed of its own; `first_element` is the position of the encoded
// elements in the whole tensor.
struct Draw {
  std::uint64_t seed = 0;
  std::uint64_t first_element = 0;
};

struct CodecKernels;  // kernels/quantize_table.hpp

// One code for elements of one type. Buffers do not overlap unless said otherwise. `sums` are accumulators:
// items of accumulator_of(element). Counts are elements.
class Codec {
 public:
  // Nothing where the kind is none, the block no multiple of 32 up to the maximum, or the type not floating.
  static std::optional<Codec> of(const BlockCode& code, DType element) {
    return at(best().level(), code, element);
  }
  // On a given instruction set; nothing if the CPU or the build lacks it. For tests and measurements.
  static std::optional<Codec> at(Level level, const BlockCode& code, DType element);

  std::size_t encoded_bytes(std::size_t count) const;

  // False where an element is not finite (for bf16 of float64: exceeds float32); `out` is undefined then.
  [[nodiscard]] bool encode(const void* in, std::size_t count, const Draw& draw, void* out) const;

  // encode(sums / divisor), and decode to `decoded` in the same pass, unless that is null: the owner of a sum
  // uses what everybody else will decode. False as encode; both outputs are undefined then. `decoded` may be
  // `sums` where element and accumulator are the same type.
  // `streaming`: `decoded` past the caches.
  [[nodiscard]] bool encode_sum(const void* sums, std::size_t count, double divisor, const Draw& draw,
                                void* out, void* decoded, bool streaming = false) const;

  // To elements; rounded to nearest even where they have 16 bits. `streaming`: past the caches.
  void decode(const void* in, std::size_t count, void* out, bool streaming = false) const;

  // sums = weight * decoded, and sums += weight * decoded; rounded after each step, to accumulators.
  void decode_set(const void* in, std::size_t count, void* sums, double weight = 1.0) const;
  void decode_add(const void* in, std::size_t count, void* sums, double weight = 1.0) const;

 private:
  Codec(const BlockCode& code, DType element, const CodecKernels& kernels, const Set& set)
      : code_(code), element_(element), kernels_(&kernels), set_(&set) {}

  bool encode_accumulators(const void* in, std::size_t count, const Draw& draw, void* out) const;
  void decode_accumulators(const void* in, std::size_t count, void* sums, double weight, bool adds) const;
  void decode_streaming(const void* in, std::size_t count, void* out) const;
  template <class Body> bool for_runs(std::size_t count, const Body& body) const;

  BlockCode code_;
  DType element_;
  const CodecKernels* kernels_;
  const Set* set_;
};

}  // namespace pccl::kernels
