// Error feedback: what the encoding of a contribution lost, and at its owner that of a sum, is added to the
// next one. Both sides of a quantized average are compensated as in DoubleSqueeze (Tang et al. 2019, arXiv
// 1905.05957), where the sums' side is its owner's contribution.
#include <algorithm>

#include "kernels/finite.hpp"
#include "kernels/quantize.hpp"
#include "kernels/reduce.hpp"
#include "runtime/operation_memory.hpp"

namespace pccl {

std::size_t OperationMemory::residual_offset(const Chunk& chunk) const {
  return chunk.offset * size_of(accumulator_of(chunk.dtype));
}

// out = own + residual; leaves encoded; out -= what everybody decodes.
bool OperationMemory::encode_corrected(const Executor& executor, const Chunk& chunk, std::uint8_t* to) {
  const auto wide = accumulator_of(chunk.dtype);
  const auto codec = kernels::Codec::of(executor.code(), wide);  // its encoding is that of the elements
  if (!codec) return false;
  const auto& residual = residuals_[chunk.tensor];
  auto* out = residual.out + residual_offset(chunk);
  kernels::widen_scaled(chunk.dtype, out, input(chunk), chunk.count, 1.0);
  kernels::combine(
      wide, ReduceOp::sum, Wire::element, Wire::element,
      {.out = out, .incoming = out, .own = residual.in + residual_offset(chunk), .count = chunk.count});
  if (!codec->encode(out, chunk.count, draw_of(chunk, false), to)) return false;
  codec->decode_add(to, chunk.count, out, -1.0);
  return true;
}

// The owner's contribution is not encoded.
void OperationMemory::add_residual(const Chunk& chunk, std::uint8_t* sum, double weight) const {
  kernels::combine_weighted(accumulator_of(chunk.dtype), Wire::accumulator, Wire::accumulator,
                            {.out = sum,
                             .incoming = sum,
                             .own = residuals_[chunk.tensor].in + residual_offset(chunk),
                             .count = chunk.count},
                            weight);
}

// What the results lack of the exact sum, as a contribution of this peer's weight: it counts in full in the
// next one. A weight far below the others' would make it so large that a usual weight next time overshoots.
bool OperationMemory::keep_error(const Executor& executor, const Chunk& chunk, const std::uint8_t* sum,
                                 double divisor) {
  const auto wide = accumulator_of(chunk.dtype);
  auto* out = residuals_[chunk.tensor].out + residual_offset(chunk);
  kernels::combine_weighted(chunk.dtype, Wire::accumulator, Wire::accumulator,
                            {.out = out, .incoming = sum, .own = output(chunk), .count = chunk.count},
                            -divisor);
  if (weight_) {
    const auto least = divisor / (2.0 * executor.plan().world);
    kernels::scale(wide, out, chunk.count, std::max(own_weight(), least));
  }
  return kernels::all_finite(wide, out, chunk.count);  // else 16 bits could not hold the result
}

}  // namespace pccl
