#pragma once
// Element-wise arithmetic of the data plane: out = incoming (op) own, averages, weights, undo copies.
// Pure functions over caller-owned memory, callable from any thread; the instruction set is chosen once per
// process, and all of them give the same bits for every function here (tests hold them against each other).

#include <cstddef>
#include <cstdint>

#include "base/dtype.hpp"

namespace pccl::kernels {

// What a buffer holds: elements, or accumulator_of(element). They differ for float16 and bfloat16 only, which
// always reduce in float32; accumulators between steps mean that the whole reduction is rounded once.
// Quantized bytes are for a codec (quantize.hpp), never for the functions below.
enum class Wire : std::uint8_t { element, accumulator, quantized };

// `scalar` is portable code, compiled for the architecture's baseline (SSE2 on x86-64, NEON on aarch64).
enum class Level : std::uint8_t { scalar, neon, avx2, avx512 };
inline constexpr Level all_levels[] = {Level::scalar, Level::neon, Level::avx2, Level::avx512};

// Buffers may have any address, also one that is no multiple of the element's size (slower). `out` may be
// exactly `incoming` or exactly `own` where both hold items of the same size; nothing else may overlap.
struct ReduceArgs {
  void* out = nullptr;
  const void* incoming = nullptr;
  const void* own = nullptr;  // always elements
  std::size_t count = 0;      // items, not bytes
  // Write `out` past the caches: for large results that are read much later. Visible to other threads and to
  // the kernel when the call returns. Ignored in place, and where out is no multiple of its items' size.
  bool streaming = false;
  // For the last step of an average: the result is divided by this before it is stored (and rounded once,
  // after the division, for 16-bit floats). Same bits as a separate finish_avg, without its pass over memory.
  double divisor = 1.0;
};

struct Table;  // kernels/table.hpp

// The rules, the same on every level:
// * Operands are taken in the order incoming (op) own. avg adds like sum and divides only by a given divisor.
// * Integers wrap around in two's complement.
// * A NaN result is the positive quiet NaN without payload; min and max give it if either operand is NaN.
// * min orders -0 before +0, and so does max.
// * Factors and divisors are first rounded to the accumulator type. Nothing is fused.
// * Integer division truncates toward zero; its divisor is truncated first and taken to be 1 to 2^53.
// * Rounding is to nearest, ties to even. Flush-to-zero modes are those of the calling thread.
class Set {
 public:
  explicit constexpr Set(const Table& table) : table_(&table) {}
  Level level() const;

  void combine(DType element, ReduceOp op, Wire incoming, Wire out, const ReduceArgs& args) const;

  // combine to elements, and `keep[i]` = the old own[i] in the same pass, written past the caches: the undo
  // copy. `keep` overlaps nothing else.
  void combine_keep(DType element, ReduceOp op, Wire incoming, const ReduceArgs& args, void* keep) const;

  // out = incoming + weight * own, rounded after product and sum. False (and nothing done) for integers.
  bool combine_weighted(DType element, Wire incoming, Wire out, const ReduceArgs& args, double weight) const;

  // out (accumulators) = in (elements) * factor. False (and nothing done) for integers, unless the factor
  // is 1. `out` may be `in` where accumulator and element are the same type.
  bool widen_scaled(DType element, void* out, const void* in, std::size_t count, double factor) const;

  // data = data / divisor, elements in place.
  void scale(DType element, void* data, std::size_t count, double divisor) const;

  // out (elements) = in / divisor. `out` may be `in` where both hold items of the same size.
  void finish_avg(DType element, Wire in_wire, void* out, const void* in, std::size_t count, double divisor,
                  bool streaming = false) const;

  // memcpy, past the caches on the writing side if streaming.
  void copy(void* to, const void* from, std::size_t bytes, bool streaming) const;

 private:
  const Table* table_;
};

// The fastest set that this CPU runs.
const Set& best();

// A given level; nullptr if the CPU or the build lacks it. For tests and measurements.
const Set* kernels_at(Level level);

// The same functions on the fastest set.
inline void combine(DType element, ReduceOp op, Wire incoming, Wire out, const ReduceArgs& args) {
  best().combine(element, op, incoming, out, args);
}
inline void combine_keep(DType element, ReduceOp op, Wire incoming, const ReduceArgs& args, void* keep) {
  best().combine_keep(element, op, incoming, args, keep);
}
inline bool combine_weighted(DType element, Wire incoming, Wire out, const ReduceArgs& args, double weight) {
  return best().combine_weighted(element, incoming, out, args, weight);
}
inline bool widen_scaled(DType element, void* out, const void* in, std::size_t count, double factor) {
  return best().widen_scaled(element, out, in, count, factor);
}
inline void scale(DType element, void* data, std::size_t count, double divisor) {
  best().scale(element, data, count, divisor);
}
inline void finish_avg(DType element, Wire in_wire, void* out, const void* in, std::size_t count,
                       double divisor, bool streaming = false) {
  best().finish_avg(element, in_wire, out, in, count, divisor, streaming);
}
inline void copy(void* to, const void* from, std::size_t bytes, bool streaming) {
  best().copy(to, from, bytes, streaming);
}

}  // namespace pccl::kernels
