// Sums of parts that come from everywhere, at the one who owns them: plain, weighted, quantized.
#include <algorithm>
#include <cstring>

#include "base/rng.hpp"
#include "kernels/quantize.hpp"
#include "kernels/reduce.hpp"
#include "runtime/operation_memory.hpp"

namespace pccl {

namespace {
// A sum grows in the innermost cache while its parts stream by.
constexpr std::size_t fold_elements = 4096;
}  // namespace

// All parts in the order of positions: the same bits whoever came first. The sum grows in the cache, is
// divided and rounded once, and leaves from there.
bool OperationMemory::fold(const Executor& executor, const Work& work, SlotPool& slots) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const bool quantized = executor.plan().steps[work.step].in == Wire::quantized;
  bool finite = true;
  std::vector<const std::uint8_t*> parts;
  for (const auto slot : work.parts) parts.push_back(slot == no_slot ? input(chunk) : slots.read(slot));
  if (work.keep) keep(executor, work.chunk);
  auto* to = work.to_slot && !quantized ? sums(chunk, work, slots) : output(chunk);
  sum_.resize(chunk.count * size_of(accumulator_of(chunk.dtype)));
  if (quantized)
    finite = fold_quantized(executor, chunk, parts,
                            slots.write(work.slot, executor.chunk_bytes(work.chunk, Wire::quantized)));
  else if (weight_)
    fold_weighted(chunk, parts, to);
  else
    fold_plain(executor, work, parts, to);
  if (!quantized && work.to_slot && work.to_output)
    kernels::copy(output(chunk), to, chunk.element_bytes(), streaming_);
  for (const auto slot : work.parts)
    if (slot != no_slot && slot != work.slot) slots.give(slot);
  return finite;
}

void OperationMemory::fold_plain(const Executor& executor, const Work& work,
                                 const std::vector<const std::uint8_t*>& parts, std::uint8_t* to) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const auto& plan = executor.plan();
  const auto& step = plan.steps[work.step];
  const auto size = size_of(chunk.dtype);
  const auto position = [&](std::size_t part) {
    const auto collect = step.parts[part];
    return collect == own_part ? plan.position : std::uint32_t(plan.steps[collect].from);
  };
  for (std::size_t begin = 0; begin < chunk.count; begin += fold_elements) {
    kernels::ReduceArgs args{.incoming = parts[0] + begin * size,
                             .count = std::min<std::size_t>(fold_elements, chunk.count - begin)};
    kernels::Contributors from{.incoming = position(0), .segment = step.segment};
    for (std::size_t i = 1; i < parts.size(); ++i) {
      const bool last = i + 1 == parts.size();
      args.out = last ? to + begin * size : sum_.data();
      args.own = parts[i] + begin * size;
      args.divisor = last ? reduction_->divisor(plan.world) : 1.0;
      args.streaming = last && streaming_ && !work.to_slot;
      from.own = position(i);
      reduction_->combine(chunk.dtype, i == 1 ? Wire::element : Wire::accumulator,
                          last ? Wire::element : Wire::accumulator, args, from);
      args.incoming = sum_.data();
      from.incoming = kernels::partial_sum;
    }
  }
}

void OperationMemory::fold_weighted(const Chunk& chunk, const std::vector<const std::uint8_t*>& parts,
                                    std::uint8_t* to) {
  auto* sum = sum_.data();
  kernels::widen_scaled(chunk.dtype, sum, parts[0], chunk.count, counted(weights_[0]));
  for (std::size_t i = 1; i < parts.size(); ++i)
    kernels::combine_weighted(chunk.dtype, Wire::accumulator, Wire::accumulator,
                              {.out = sum, .incoming = sum, .own = parts[i], .count = chunk.count},
                              counted(weights_[i]));
  const auto total = total_weight();
  if (total > 0)
    kernels::finish_avg(chunk.dtype, Wire::accumulator, to, sum, chunk.count, total);
  else
    std::memset(to, 0, chunk.element_bytes());
}

// ---- quantized ----

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

// Parts are decoded as they are added; the own input was never encoded. The sum is encoded where it leaves
// from, and what everybody will decode is the result here too.
bool OperationMemory::fold_quantized(const Executor& executor, const Chunk& chunk,
                                     const std::vector<const std::uint8_t*>& parts, std::uint8_t* encoded) {
  const auto codec = codec_of(executor, chunk);
  if (!codec) return false;
  auto* sum = sum_.data();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto weight = weight_ ? counted(weights_[i]) : 1.0;
    const bool own = parts[i] == input(chunk);
    if (own && i == 0)
      kernels::widen_scaled(chunk.dtype, sum, parts[i], chunk.count, weight);
    else if (own)
      kernels::combine_weighted(chunk.dtype, Wire::accumulator, Wire::accumulator,
                                {.out = sum, .incoming = sum, .own = parts[i], .count = chunk.count}, weight);
    else if (i == 0)
      codec->decode_set(parts[i], chunk.count, sum, weight);
    else
      codec->decode_add(parts[i], chunk.count, sum, weight);
    if (own && feedback_) add_residual(chunk, sum, weight);
  }
  auto divisor = weight_ ? total_weight() : reduction_->divisor(std::uint32_t(parts.size()));
  if (!(divisor > 0)) {  // all weights are 0
    std::memset(sum, 0, sum_.size());
    divisor = 1.0;
  }
  return codec->encode_sum(sum, chunk.count, divisor, draw_of(chunk, true), encoded, output(chunk)) &&
         (!feedback_ || keep_error(executor, chunk, sum, divisor));
}

void OperationMemory::decode(const Executor& executor, const Work& work, const std::uint8_t* slot) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  if (work.keep) keep(executor, work.chunk);
  if (const auto codec = codec_of(executor, chunk)) codec->decode(slot, chunk.count, output(chunk));
}

}  // namespace pccl
