#include "runtime/operation_memory.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/limits.hpp"
#include "kernels/reduce.hpp"

namespace pccl {

namespace {
// Results larger than the second-level cache are read much later than they are written: write past the
// caches.
constexpr std::uint64_t streaming_from = 2u << 20;

// What arrives as elements is an input that nobody has touched; sums on their way are accumulators.
kernels::Contributors contributors(const Plan& plan, const Step& step) {
  const bool untouched = step.in == Wire::element;
  return {untouched ? std::uint32_t(step.from) : kernels::partial_sum, plan.position, step.segment};
}
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
                                 UndoPool& undo_pool, Call call, std::vector<ResidualSpan> residuals)
    : OperationMemory(std::move(tensors), kernels::reduction_of(op), undo_pool, call) {
  weight_ = weight;
  residuals_ = std::move(residuals);
}

OperationMemory::OperationMemory(std::vector<TensorSpan> tensors,
                                 std::shared_ptr<const kernels::Reduction> reduction, UndoPool& undo_pool,
                                 Call call)
    : tensors_(std::move(tensors)), reduction_(std::move(reduction)), call_(call), undo_pool_(undo_pool) {
  for (const auto& tensor : tensors_) {
    undo_offset_.push_back(bytes_);
    bytes_ += tensor.count * size_of(tensor.dtype);
    in_place_ |= !in_blocks(call) && tensor.count > 0 && tensor.in == tensor.out;
  }
  streaming_ = bytes_ > streaming_from;
}

OperationMemory::OperationMemory(const CodedRequest& coded, UndoPool& undo_pool)
    : OperationMemory({{nullptr, nullptr, coded.block_bytes, DType::uint8}},
                      kernels::galois_reduction(coefficients(*coded.sums, coded.world)), undo_pool,
                      Call::coded_reduce) {
  coded_.emplace(coded);
}

namespace {
std::uint64_t in_block(std::uint64_t offset, std::uint64_t count, std::uint64_t block) {
  return block * count + offset % count;
}
}  // namespace

std::uint8_t* OperationMemory::output(const Chunk& chunk) {
  if (hidden(chunk)) return reinterpret_cast<std::uint8_t*>(weights_.data() + chunk.offset);
  if (coded_) return coded_->output(chunk);
  const auto& tensor = tensors_[chunk.tensor];
  auto offset = chunk.offset;
  if (in_blocks(call_)) offset = in_block(offset, tensor.count, blocks_.out(offset / tensor.count));
  return tensor.out + offset * size_of(chunk.dtype);
}

void OperationMemory::take(const Chunk& chunk, const std::uint8_t* from) {
  kernels::copy(output(chunk), from, chunk.element_bytes(), streaming_);
}

const std::uint8_t* OperationMemory::input(const Chunk& chunk) const {
  if (hidden(chunk)) return reinterpret_cast<const std::uint8_t*>(&*weight_);
  if (coded_) return coded_->input(chunk);
  if (!zeros_.empty()) return zeros_.data();
  const auto& tensor = tensors_[chunk.tensor];
  auto offset = chunk.offset;
  if (in_blocks(call_)) offset = in_block(offset, tensor.count, blocks_.in(offset / tensor.count));
  return tensor.in + offset * size_of(chunk.dtype);
}

void OperationMemory::begin(const Executor& executor) {
  kept_.clear();
  if (coded_) coded_->begin(executor.layout());
  blocks_ = {call_, executor.plan().position, executor.plan().world};
  weights_.assign(weight_ ? executor.plan().world : 0, 0.0);
  const auto& steps = executor.plan().steps;
  const bool quantized = std::any_of(steps.begin(), steps.end(), [](const Step& step) {
    return step.in == Wire::quantized || step.out == Wire::quantized;
  });
  feedback_ = !residuals_.empty() && quantized && own_weight() > 0;
  if (!weight_ || *weight_ != skipped_weight) return;
  for (std::uint32_t chunk = 0; chunk < executor.layout().chunks(); ++chunk)
    zeros_.resize(std::max<std::size_t>(zeros_.size(), executor.layout().chunk(chunk).element_bytes()));
}

// Of what all send to all in one hop, own bytes may have to leave once more when their sum is here already.
// In all other plans a result is made of what others have received.
void OperationMemory::keep_no_input() { keeps_ = bytes_ <= limits::exchange_bytes_max; }

// The first write to a chunk of an in-place operation keeps what the caller had there.
void OperationMemory::keep(const Executor& executor, std::uint32_t index) {
  if (!keeps_) return;
  const auto& chunk = executor.layout().chunk(index);
  kernels::copy(undo_of(chunk), output(chunk), chunk.element_bytes(), streaming_);
  kept_.push_back(chunk);
}

std::uint8_t* OperationMemory::undo_of(const Chunk& chunk) {
  if (undo_ == nullptr) undo_ = undo_pool_.take(bytes_);
  return undo_.get() + undo_offset_[chunk.tensor] + chunk.offset * size_of(chunk.dtype);
}

const std::uint8_t* OperationMemory::contribution(const Executor& executor, std::uint32_t index) {
  const auto& chunk = executor.layout().chunk(index);
  const auto* own = input(chunk);
  if (!in_place_ || hidden(chunk) || own != output(chunk)) return own;
  for (const auto& kept : kept_)
    if (kept.tensor == chunk.tensor && kept.offset == chunk.offset) return undo_of(chunk);
  return own;
}

void OperationMemory::restore() {
  for (const auto& chunk : kept_) std::memcpy(output(chunk), undo_of(chunk), chunk.element_bytes());
  kept_.clear();
}

double OperationMemory::total_weight() const {
  return std::accumulate(weights_.begin(), weights_.end(), 0.0,
                         [](double sum, double weight) { return sum + counted(weight); });
}

std::vector<std::uint32_t> OperationMemory::skipped() const {
  std::vector<std::uint32_t> positions;
  for (std::uint32_t position = 0; position < weights_.size(); ++position)
    if (weights_[position] == skipped_weight) positions.push_back(position);
  return positions;
}

bool OperationMemory::all_skipped() const {
  if (weights_.size() == 1) return *weight_ == skipped_weight;  // alone: nobody sent it
  return !weights_.empty() && skipped().size() == weights_.size();
}

void OperationMemory::scale_own(const Executor& executor, std::uint32_t index, std::uint8_t* to) const {
  const auto& chunk = executor.layout().chunk(index);
  kernels::widen_scaled(chunk.dtype, to, input(chunk), chunk.count, own_weight());
}

bool OperationMemory::run(const Executor& executor, const Work& work, SlotPool& slots) {
  const bool sums =
      work.merge == Merge::fold || executor.plan().steps[work.step].finish || executor.plan().world == 1;
  if (sums && !hidden(executor.layout().chunk(work.chunk)) && all_skipped()) return false;
  bool finite = true;
  if (work.merge == Merge::own)
    take_own(executor, work);
  else if (work.merge == Merge::replace)
    decode(executor, work, slots.read(work.slot));
  else if (work.merge == Merge::fold)
    finite = fold(executor, work, slots);
  else if (executor.plan().steps[work.step].finish)
    finish(executor, work, slots);
  else
    reduce(executor, work, slots);
  if (work.free_slot) slots.give(work.slot);
  return finite;
}

void OperationMemory::take_own(const Executor& executor, const Work& work) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const bool alone = executor.plan().world == 1 && !hidden(chunk);
  const bool zeros = alone && weight_ && !(*weight_ > 0);  // as with others
  const bool changed = zeros || (alone && !reduction_->keeps_single());
  if (changed && input(chunk) == output(chunk)) keep(executor, work.chunk);
  if (zeros) {
    std::memset(output(chunk), 0, chunk.element_bytes());
  } else if (changed) {
    const kernels::ReduceArgs args{.out = output(chunk), .own = input(chunk), .count = chunk.count};
    const auto segment = executor.plan().steps[work.step].segment;
    reduction_->combine(chunk.dtype, Wire::element, Wire::element, args, {kernels::nobody, 0, segment});
  } else if (input(chunk) != output(chunk)) {
    kernels::copy(output(chunk), input(chunk), chunk.element_bytes(), streaming_);
  }
}

// A partial sum: stays in the slot, or is spilled to the output when slots are short.
void OperationMemory::reduce(const Executor& executor, const Work& work, SlotPool& slots) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const auto& step = executor.plan().steps[work.step];
  if (work.keep) keep(executor, work.chunk);
  const auto* incoming = slots.read(work.slot);
  kernels::ReduceArgs args{.out = work.to_slot ? sums(chunk, work, slots) : output(chunk),
                           .incoming = incoming,
                           .own = input(chunk),
                           .count = chunk.count};
  if (args.out == incoming && step.in != step.out && accumulator_of(chunk.dtype) != chunk.dtype) {
    narrow_.assign(incoming, incoming + chunk.element_bytes());  // the wider sums would overtake what came
    args.incoming = narrow_.data();
  }
  if (weight_)
    kernels::combine_weighted(chunk.dtype, step.in, step.out, args, own_weight());
  else
    reduction_->combine(chunk.dtype, step.in, step.out, args, contributors(executor.plan(), step));
}

// A slot as memory for what is computed.
std::uint8_t* OperationMemory::sums(const Chunk& chunk, const Work& work, SlotPool& slots) {
  return slots.write(work.slot, chunk.count * size_of(accumulator_of(chunk.dtype)));
}

// The whole sum: computed in the cache-hot slot where the sizes allow it, stored past the caches, sent from
// the slot.
void OperationMemory::finish(const Executor& executor, const Work& work, SlotPool& slots) {
  const auto& chunk = executor.layout().chunk(work.chunk);
  const auto& step = executor.plan().steps[work.step];
  const auto same_size = step.in == Wire::element || accumulator_of(chunk.dtype) == chunk.dtype;
  auto* out = output(chunk);
  const auto* incoming = slots.read(work.slot);
  auto* slot = work.to_slot || weight_ ? sums(chunk, work, slots) : nullptr;
  kernels::ReduceArgs args{.out = slot, .incoming = incoming, .own = input(chunk), .count = chunk.count};
  if (weight_) {
    kernels::combine_weighted(chunk.dtype, Wire::accumulator, Wire::accumulator, args, own_weight());
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
  const auto from = contributors(executor.plan(), step);
  args.divisor = reduction_->divisor(executor.plan().world);
  if (same_size && work.to_slot) {
    reduction_->combine(chunk.dtype, step.in, Wire::element, args, from);
    if (work.keep) keep(executor, work.chunk);
    return kernels::copy(out, slot, chunk.element_bytes(), streaming_);
  }
  args.out = out;
  if (work.keep && keeps_) {  // one pass: the old bytes to the undo copy, the sum in their place
    reduction_->combine_keep(chunk.dtype, step.in, args, from, undo_of(chunk));
    kept_.push_back(chunk);
    if (work.to_slot) std::memcpy(slot, out, chunk.element_bytes());
    return;
  }
  args.streaming = streaming_ && !work.to_slot;
  reduction_->combine(chunk.dtype, step.in, Wire::element, args, from);
  if (work.to_slot) std::memcpy(slot, out, chunk.element_bytes());
}

}  // namespace pccl
