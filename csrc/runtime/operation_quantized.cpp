// Quantized contributions and sums: each is encoded once, where it leaves from; sums are of what was decoded.
#include <algorithm>
#include <cstring>

#include "base/rng.hpp"
#include "kernels/quantize.hpp"
#include "kernels/reduce.hpp"
#include "runtime/operation_memory.hpp"

namespace pccl {

std::optional<kernels::Codec> OperationMemory::codec_of(const Executor& executor, const Chunk& chunk) {
  return kernels::Codec::of(executor.code(), chunk.dtype);
}

// Every contribution and every sum has draws of its own, the same in each attempt.
kernels::Draw OperationMemory::draw_of(const Chunk& chunk, bool sum) const {
  return {mix64(seed_ ^ mix64(2 * std::uint64_t{chunk.tensor} + sum)), chunk.offset};
}

bool OperationMemory::encode_own(const Executor& executor, std::uint32_t index, std::uint8_t* to) {
  const auto& chunk = executor.layout().chunk(index);
  if (feedback_) return encode_corrected(executor, chunk, to);
  const auto codec = codec_of(executor, chunk);
  return codec && codec->encode(input(chunk), chunk.count, draw_of(chunk, false), to);
}

bool OperationMemory::own_is_finite(const Executor& executor, std::uint32_t index) const {
  const auto& chunk = executor.layout().chunk(index);
  std::vector<std::uint8_t> scratch(executor.chunk_bytes(index, Wire::quantized));
  const auto codec = codec_of(executor, chunk);
  return codec && codec->encode(input(chunk), chunk.count, draw_of(chunk, false), scratch.data());
}

// Whole blocks at a time, so that the sum stays in the innermost cache.
bool OperationMemory::fold_quantized(const Executor& executor, const Chunk& chunk,
                                     const std::vector<const std::uint8_t*>& parts, std::uint8_t* encoded) {
  const auto codec = codec_of(executor, chunk);
  if (!codec) return false;
  const auto block = std::max(executor.code().block, 1u);
  const auto most = std::max<std::uint32_t>(fold_elements / block * block, block);
  for (std::uint32_t begin = 0; begin < chunk.count; begin += most) {
    auto range = chunk;
    range.offset += begin;
    range.count = std::min(most, chunk.count - begin);
    const auto at = codec->encoded_bytes(begin);
    std::vector<const std::uint8_t*> from;
    for (const auto* part : parts) from.push_back(part == input(chunk) ? nullptr : part + at);
    if (!fold_quantized_range(executor, *codec, range, from, encoded + at)) return false;
  }
  return true;
}

// Parts are decoded as they are added; the own input (null) was never encoded. The sum is encoded where it
// leaves from, and what everybody will decode is the result here too.
bool OperationMemory::fold_quantized_range(const Executor& executor, const kernels::Codec& codec,
                                           const Chunk& range, const std::vector<const std::uint8_t*>& parts,
                                           std::uint8_t* encoded) {
  auto* sum = sum_.data();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto weight = weight_ ? counted(weights_[i]) : 1.0;
    const bool own = parts[i] == nullptr;
    if (own && i == 0)
      kernels::widen_scaled(range.dtype, sum, input(range), range.count, weight);
    else if (own)
      kernels::combine_weighted(range.dtype, Wire::accumulator, Wire::accumulator,
                                {.out = sum, .incoming = sum, .own = input(range), .count = range.count},
                                weight);
    else if (i == 0)
      codec.decode_set(parts[i], range.count, sum, weight);
    else
      codec.decode_add(parts[i], range.count, sum, weight);
    if (own && feedback_) add_residual(range, sum, weight);
  }
  auto divisor = weight_ ? total_weight() : reduction_->divisor(std::uint32_t(parts.size()));
  if (!(divisor > 0)) {  // all weights are 0
    std::memset(sum, 0, range.count * size_of(accumulator_of(range.dtype)));
    divisor = 1.0;
  }
  return codec.encode_sum(sum, range.count, divisor, draw_of(range, true), encoded, output(range),
                          streaming_ && !feedback_) &&
         (!feedback_ || keep_error(executor, range, sum, divisor));
}

void OperationMemory::decode(const Executor& executor, const Work& work, const std::uint8_t* slot) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  if (work.keep) keep(executor, work.chunk);
  if (const auto codec = codec_of(executor, chunk))
    codec->decode(slot, chunk.count, output(chunk), streaming_);
}

}  // namespace pccl
