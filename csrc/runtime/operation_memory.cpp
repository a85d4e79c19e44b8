#include "runtime/operation_memory.hpp"

#include <cstring>
#include <numeric>

#include "kernels/reduce.hpp"

namespace pccl {

namespace {
// Results larger than the second-level cache are read much later than they are written: write past the
// caches.
constexpr std::uint64_t streaming_from = 2u << 20;
}  // namespace

std::uint64_t BlockSpan::in(std::uint64_t segment) const {
  if (call == Call::all_gather || call == Call::gather) return segment - position;
  return call == Call::all_to_all ? (position + segment) % world : segment;
}

std::uint64_t BlockSpan::out(std::uint64_t segment) const {
  if (call == Call::scatter || call == Call::reduce_scatter) return segment - position;
  return call == Call::all_to_all ? (position + world - segment) % world : segment;
}

OperationMemory::OperationMemory(std::vector<TensorSpan> tensors, ReduceOp op, std::optional<double> weight,
                                 UndoPool& undo_pool, Call call)
    : tensors_(std::move(tensors)), op_(op), call_(call), weight_(weight), undo_pool_(undo_pool) {
  for (const auto& tensor : tensors_) {
    undo_offset_.push_back(bytes_);
    bytes_ += tensor.count * size_of(tensor.dtype);
    in_place_ |= !in_blocks(call) && tensor.count > 0 && tensor.in == tensor.out;
  }
  streaming_ = bytes_ > streaming_from;
}

namespace {
std::uint64_t in_block(std::uint64_t offset, std::uint64_t count, std::uint64_t block) {
  return block * count + offset % count;
}
}  // namespace

std::uint8_t* OperationMemory::output(const Chunk& chunk) {
  if (hidden(chunk)) return reinterpret_cast<std::uint8_t*>(weights_.data() + chunk.offset);
  const auto& tensor = tensors_[chunk.tensor];
  auto offset = chunk.offset;
  if (in_blocks(call_)) offset = in_block(offset, tensor.count, blocks_.out(offset / tensor.count));
  return tensor.out + offset * size_of(chunk.dtype);
}

const std::uint8_t* OperationMemory::input(const Chunk& chunk) const {
  if (hidden(chunk)) return reinterpret_cast<const std::uint8_t*>(&*weight_);
  const auto& tensor = tensors_[chunk.tensor];
  auto offset = chunk.offset;
  if (in_blocks(call_)) offset = in_block(offset, tensor.count, blocks_.in(offset / tensor.count));
  return tensor.in + offset * size_of(chunk.dtype);
}

void OperationMemory::begin(const Executor& executor) {
  kept_.clear();
  blocks_ = {call_, executor.plan().position, executor.plan().world};
  weights_.assign(weight_ ? executor.plan().world : 0, 0.0);
}

// The first write to a chunk of an in-place operation keeps what the caller had there.
void OperationMemory::keep(const Executor& executor, std::uint32_t index) {
  const auto& chunk = executor.layout().chunk(index);
  kernels::copy(undo_of(chunk), output(chunk), chunk.element_bytes(), streaming_);
  kept_.push_back(chunk);
}

std::uint8_t* OperationMemory::undo_of(const Chunk& chunk) {
  if (undo_ == nullptr) undo_ = undo_pool_.take(bytes_);
  return undo_.get() + undo_offset_[chunk.tensor] + chunk.offset * size_of(chunk.dtype);
}

void OperationMemory::restore() {
  for (const auto& chunk : kept_) std::memcpy(output(chunk), undo_of(chunk), chunk.element_bytes());
  kept_.clear();
}

double OperationMemory::total_weight() const {
  return std::accumulate(weights_.begin(), weights_.end(), 0.0);
}

void OperationMemory::scale_own(const Executor& executor, std::uint32_t index, std::uint8_t* to) const {
  const auto& chunk = executor.layout().chunk(index);
  kernels::widen_scaled(chunk.dtype, to, input(chunk), chunk.count, weight_.value_or(1.0));
}

bool OperationMemory::run(const Executor& executor, const Work& work, SlotPool& slots) {
  bool finite = true;
  if (work.merge == Merge::own)
    take_own(executor, work);
  else if (work.merge == Merge::replace)
    decode(executor, work, slots.data(work.slot));
  else if (work.merge == Merge::fold)
    finite = fold(executor, work, slots);
  else if (executor.plan().steps[work.step].finish)
    finish(executor, work, slots.data(work.slot));
  else
    reduce(executor, work, slots.data(work.slot));
  if (work.free_slot) slots.give(work.slot);
  return finite;
}

void OperationMemory::take_own(const Executor& executor, const Work& work) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  if (executor.plan().world == 1 && weight_ && *weight_ == 0 && !hidden(chunk)) {
    if (input(chunk) == output(chunk)) keep(executor, work.chunk);
    std::memset(output(chunk), 0, chunk.element_bytes());  // alone, as with others: zeros
  } else if (input(chunk) != output(chunk)) {
    kernels::copy(output(chunk), input(chunk), chunk.element_bytes(), streaming_);
  }
}

// A partial sum: stays in the slot, or is spilled to the output when slots are short.
void OperationMemory::reduce(const Executor& executor, const Work& work, std::uint8_t* slot) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const auto& step = executor.plan().steps[work.step];
  if (work.keep) keep(executor, work.chunk);
  kernels::ReduceArgs args{.out = work.to_slot ? slot : output(chunk),
                           .incoming = slot,
                           .own = input(chunk),
                           .count = chunk.count};
  if (work.to_slot && step.in != step.out && accumulator_of(chunk.dtype) != chunk.dtype) {
    narrow_.assign(
        slot, slot + chunk.element_bytes());  // the sums are wider than what came: they would overtake it
    args.incoming = narrow_.data();
  }
  if (weight_)
    kernels::combine_weighted(chunk.dtype, step.in, step.out, args, *weight_);
  else
    kernels::combine(chunk.dtype, op_, step.in, step.out, args);
}

// The whole sum: computed in the cache-hot slot where the sizes allow it, stored past the caches, sent from
// the slot.
void OperationMemory::finish(const Executor& executor, const Work& work, std::uint8_t* slot) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const auto& step = executor.plan().steps[work.step];
  const auto same_size = step.in == Wire::element || accumulator_of(chunk.dtype) == chunk.dtype;
  auto* out = output(chunk);
  kernels::ReduceArgs args{.out = slot, .incoming = slot, .own = input(chunk), .count = chunk.count};
  if (weight_) {
    kernels::combine_weighted(chunk.dtype, Wire::accumulator, Wire::accumulator, args, *weight_);
    if (work.keep) keep(executor, work.chunk);
    const auto total = total_weight();
    if (total > 0)
      kernels::finish_avg(chunk.dtype, Wire::accumulator, out, slot, chunk.count, total,
                          streaming_ && !work.to_slot);
    else
      std::memset(out, 0, chunk.element_bytes());
    if (work.to_slot) std::memcpy(slot, out, chunk.element_bytes());
    return;
  }
  args.divisor = op_ == ReduceOp::avg ? double(executor.plan().world) : 1.0;
  if (same_size && work.to_slot) {
    kernels::combine(chunk.dtype, op_, step.in, Wire::element, args);
    if (work.keep) keep(executor, work.chunk);
    return kernels::copy(out, slot, chunk.element_bytes(), streaming_);
  }
  args.out = out;
  if (work.keep) {  // one pass: the old bytes to the undo copy, the sum in their place
    kernels::combine_keep(chunk.dtype, op_, step.in, args, undo_of(chunk));
    kept_.push_back(chunk);
    if (work.to_slot) std::memcpy(slot, out, chunk.element_bytes());
    return;
  }
  args.streaming = streaming_ && !work.to_slot;
  kernels::combine(chunk.dtype, op_, step.in, Wire::element, args);
  if (work.to_slot) std::memcpy(slot, out, chunk.element_bytes());
}

}  // namespace pccl
