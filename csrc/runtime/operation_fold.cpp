// Sums of parts that come from everywhere, at the one who owns them: plain and weighted.
#include <algorithm>
#include <cstring>

#include "kernels/reduce.hpp"
#include "runtime/operation_memory.hpp"

namespace pccl {

// All parts in the order of the plan: the same bits whoever came first. The sum grows in the cache, is
// divided and rounded once, and leaves from there; what a further fold adds up leaves as it is.
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
    fold_weighted(executor, work, parts, to);
  else
    fold_plain(executor, work, parts, to);
  if (!quantized && work.to_slot && work.to_output)
    kernels::copy(output(chunk), to, chunk.element_bytes(), streaming_);
  for (const auto slot : work.parts)
    if (slot != no_slot && slot != work.slot) slots.give(slot);
  return finite;
}

// Accumulators that are wider than the elements grow in `sum_` and nowhere else: they would overtake what
// lies in the slot that they go to, so that these are folded whole.
void OperationMemory::fold_plain(const Executor& executor, const Work& work,
                                 const std::vector<const std::uint8_t*>& parts, std::uint8_t* to) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const auto& step = executor.plan().steps[work.step];
  const bool widens = step.out == Wire::accumulator && accumulator_of(chunk.dtype) != chunk.dtype;
  const std::size_t most = widens ? std::max(chunk.count, 1u) : fold_elements;
  for (std::size_t begin = 0; begin < chunk.count; begin += most)
    fold_range(executor, work, parts, to, begin, std::min<std::size_t>(most, chunk.count - begin));
}

// A range of a chunk, in elements.
void OperationMemory::fold_range(const Executor& executor, const Work& work,
                                 const std::vector<const std::uint8_t*>& parts, std::uint8_t* to,
                                 std::size_t begin, std::size_t count) {
  const auto dtype = executor.layout().chunk(work.chunk).dtype;
  const auto& plan = executor.plan();
  const auto& step = plan.steps[work.step];
  const auto wide = accumulator_of(dtype);
  const auto bytes_before = [&](Wire wire) { return begin * size_of(wire == Wire::element ? dtype : wide); };
  to += bytes_before(step.out);
  const auto first = part_of(plan, step, 0);
  const auto divisor = step.finish ? reduction_->divisor(plan.world) : 1.0;
  auto wire = first.wire;  // of what has been added up
  kernels::ReduceArgs args{.incoming = parts[0] + bytes_before(first.wire), .count = count};
  kernels::Contributors from{.incoming = contributor(first), .segment = step.segment};
  if (wire == Wire::accumulator && wide != dtype) {  // elements may go where these lie
    std::memcpy(sum_.data(), args.incoming, count * size_of(wide));
    args.incoming = sum_.data();
  }
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const auto part = part_of(plan, step, i);
    const bool last = i + 1 == parts.size(), sum = part.wire == Wire::accumulator && wide != dtype;
    const auto out = last && !sum ? step.out : Wire::accumulator;
    const bool ends = last && !sum && (out == Wire::element || wide == dtype);
    args.out = ends ? to : sum_.data();
    args.own = parts[i] + bytes_before(part.wire);
    args.divisor = last && !sum ? divisor : 1.0;
    args.streaming = ends && streaming_ && !work.to_slot;
    from.own = contributor(part);
    if (sum && wire == Wire::element) {
      kernels::widen_scaled(dtype, sum_.data(), args.incoming, count, 1.0);
      args.incoming = sum_.data();
    }
    if (sum)
      reduction_->combine(wide, Wire::element, Wire::element, args, from);
    else
      reduction_->combine(dtype, wire, out, args, from);
    wire = Wire::accumulator;
    args.incoming = args.out;
    from.incoming = kernels::partial_sum;
  }
  if (args.incoming == to) return;
  if (step.finish)
    kernels::finish_avg(dtype, Wire::accumulator, to, sum_.data(), count, divisor);
  else
    std::memcpy(to, sum_.data(), count * size_of(wide));
}

std::uint32_t OperationMemory::contributor(const Part& part) {
  return part.wire == Wire::accumulator ? kernels::partial_sum : part.position;
}

void OperationMemory::fold_weighted(const Executor& executor, const Work& work,
                                    const std::vector<const std::uint8_t*>& parts, std::uint8_t* to) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const auto& step = executor.plan().steps[work.step];
  auto* sum = sum_.data();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto part = part_of(executor.plan(), step, i);
    const auto weight = counted(weights_[part.position]);
    const kernels::ReduceArgs args{.out = sum, .incoming = sum, .own = parts[i], .count = chunk.count};
    if (part.wire == Wire::accumulator && i == 0)
      std::memcpy(sum, parts[i], sum_.size());
    else if (part.wire == Wire::accumulator)
      kernels::combine(accumulator_of(chunk.dtype), ReduceOp::sum, Wire::element, Wire::element, args);
    else if (i == 0)
      kernels::widen_scaled(chunk.dtype, sum, parts[i], chunk.count, weight);
    else
      kernels::combine_weighted(chunk.dtype, Wire::accumulator, Wire::accumulator, args, weight);
  }
  if (!step.finish)
    std::memcpy(to, sum, sum_.size());
  else if (const auto total = total_weight(); total > 0)
    kernels::finish_avg(chunk.dtype, Wire::accumulator, to, sum, chunk.count, total);
  else
    std::memset(to, 0, chunk.element_bytes());
}

}  // namespace pccl
