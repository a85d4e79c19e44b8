// Sums of parts that come from everywhere, at the one who owns them: plain, weighted, quantized.
#include <cstring>

#include "base/rng.hpp"
#include "kernels/quantize.hpp"
#include "kernels/reduce.hpp"
#include "runtime/operation_memory.hpp"

namespace pccl {

namespace {
bool has_inner_sums(const Plan& plan, const Step& fold) {
  for (std::size_t i = 0; i < fold.parts.size(); ++i)
    if (part_of(plan, fold, i).wire == Wire::accumulator) return true;
  return false;
}
}  // namespace

// All parts in the order of the plan: the same bits whoever came first. The sum grows in the cache, is
// divided and rounded once, and leaves from there; what a further fold adds up leaves as it is.
bool OperationMemory::fold(const Executor& executor, const Work& work, SlotPool& slots) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const auto& step = executor.plan().steps[work.step];
  const bool quantized = step.in == Wire::quantized;
  bool finite = true;
  std::vector<const std::uint8_t*> parts;
  for (const auto slot : work.parts) parts.push_back(slot == no_slot ? input(chunk) : slots.data(slot));
  if (work.keep) keep(executor, work.chunk);
  auto* to = work.to_slot ? slots.data(work.slot) : output(chunk);
  sum_.resize(chunk.count * size_of(accumulator_of(chunk.dtype)));
  if (quantized) {
    finite = fold_quantized(executor, chunk, parts, slots.data(work.slot));
  } else if (weight_ || step.out != Wire::element || has_inner_sums(executor.plan(), step)) {
    for (std::size_t i = 0; i < parts.size(); ++i)
      add_part(chunk, part_of(executor.plan(), step, i), parts[i], i == 0);
    step.finish ? finish_sum(chunk, executor.plan().world, to)
                : void(std::memcpy(to, sum_.data(), sum_.size()));
  } else {
    fold_plain(chunk, parts, op_ == ReduceOp::avg ? double(executor.plan().world) : 1.0, to);
  }
  if (!quantized && work.to_slot && work.to_output)
    kernels::copy(output(chunk), to, chunk.element_bytes(), streaming_);
  for (const auto slot : work.parts)
    if (slot != no_slot && slot != work.slot) slots.give(slot);
  return finite;
}

void OperationMemory::fold_plain(const Chunk& chunk, const std::vector<const std::uint8_t*>& parts,
                                 double divisor, std::uint8_t* to) {
  kernels::ReduceArgs args{.incoming = parts[0], .count = chunk.count};
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    args.out = last ? to : sum_.data();
    args.own = parts[i];
    args.divisor = last ? divisor : 1.0;
    kernels::combine(chunk.dtype, op_, i == 1 ? Wire::element : Wire::accumulator,
                     last ? Wire::element : Wire::accumulator, args);
    args.incoming = sum_.data();
  }
}

// To the sum, which is an accumulator.
void OperationMemory::add_part(const Chunk& chunk, const Part& part, const std::uint8_t* bytes, bool first) {
  auto* sum = sum_.data();
  const auto weight = weight_ ? weights_[part.position] : 1.0;
  kernels::ReduceArgs args{.out = sum, .incoming = sum, .own = bytes, .count = chunk.count};
  if (first && part.wire == Wire::accumulator)
    std::memcpy(sum, bytes, sum_.size());
  else if (first)
    kernels::widen_scaled(chunk.dtype, sum, bytes, chunk.count, weight);
  else if (part.wire == Wire::accumulator)
    kernels::combine(accumulator_of(chunk.dtype), op_, Wire::element, Wire::element, args);
  else if (weight_)
    kernels::combine_weighted(chunk.dtype, Wire::accumulator, Wire::accumulator, args, weight);
  else
    kernels::combine(chunk.dtype, op_, Wire::accumulator, Wire::accumulator, args);
}

// Divided and rounded once.
void OperationMemory::finish_sum(const Chunk& chunk, std::uint32_t world, std::uint8_t* to) {
  const auto total = weight_ ? total_weight() : op_ == ReduceOp::avg ? double(world) : 1.0;
  if (total > 0)
    kernels::finish_avg(chunk.dtype, Wire::accumulator, to, sum_.data(), chunk.count, total);
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

bool OperationMemory::encode_own(const Executor& executor, std::uint32_t index, std::uint8_t* to) const {
  const auto& chunk = executor.layout().chunk(index);
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
    const auto weight = weight_ ? weights_[i] : 1.0;
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
  }
  auto divisor = weight_ ? total_weight() : op_ == ReduceOp::avg ? double(parts.size()) : 1.0;
  if (!(divisor > 0)) {  // all weights are 0
    std::memset(sum, 0, sum_.size());
    divisor = 1.0;
  }
  return codec->encode_sum(sum, chunk.count, divisor, draw_of(chunk, true), encoded, output(chunk));
}

void OperationMemory::decode(const Executor& executor, const Work& work, const std::uint8_t* slot) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  if (work.keep) keep(executor, work.chunk);
  if (const auto codec = codec_of(executor, chunk)) codec->decode(slot, chunk.count, output(chunk));
}

}  // namespace pccl
