#pragma once
// The arithmetic of an operation, as whoever runs a plan asks for it: what two contributions make together.
// The usual one is a ReduceOp; over GF(2^8) every contribution has a coefficient, and the plan of a
// reduce-scatter makes parities. Immutable; shared by threads.

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/reduce.hpp"

namespace pccl::kernels {

// Whose operands they are, for reductions that have coefficients: a position's untouched input, a sum of
// several that has theirs already, or nothing (the operand is not read then).
inline constexpr std::uint32_t partial_sum = UINT32_MAX;
inline constexpr std::uint32_t nobody = UINT32_MAX - 1;
struct Contributors {
  std::uint32_t incoming = partial_sum;
  std::uint32_t own = 0;
  std::uint32_t segment = 0;
};

class Reduction {
 public:
  virtual ~Reduction() = default;

  // As Set::combine and Set::combine_keep.
  virtual void combine(DType element, Wire incoming, Wire out, const ReduceArgs& args,
                       const Contributors& from) const = 0;
  virtual void combine_keep(DType element, Wire incoming, const ReduceArgs& args, const Contributors& from,
                            void* keep) const = 0;

  // What the sum of all is divided by at the end.
  virtual double divisor(std::uint32_t) const { return 1.0; }

  // One contribution is its own sum.
  virtual bool keeps_single() const { return true; }
};

// Sums, averages, products and extremes of numbers.
std::shared_ptr<const Reduction> reduction_of(ReduceOp op);

// The sum over GF(2^8) of coefficient * contribution, byte by byte. `by_segment[s][p]` is the coefficient of
// position p in segment s; 0, also where the table ends, means that nothing of it is in the sum. Of types
// that are their own accumulators: give 16-bit floats as uint16.
std::shared_ptr<const Reduction> galois_reduction(std::vector<std::vector<std::uint8_t>> by_segment);

}  // namespace pccl::kernels
