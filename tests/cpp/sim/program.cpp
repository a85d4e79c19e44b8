#include "sim/program.hpp"

#include <algorithm>

namespace pccl::sim {

namespace {

std::vector<TensorShape> draw_tensors(const Shape& shape, Rng& rng) {
  constexpr DType types[] = {DType::float32,  DType::float32, DType::float16,
                             DType::bfloat16, DType::int64,   DType::uint8};
  std::vector<TensorShape> tensors;
  const auto count = rng.chance(shape.several_tensors) ? 2 + rng.below(2) : 1;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto dtype = types[rng.below(6)];
    auto bytes = 1 + rng.below(std::uint64_t{shape.kib_max} * 1024 / count);
    if (rng.chance(0.15)) bytes = rng.below(64);  // fewer elements than peers, or none
    tensors.push_back({dtype, bytes / size_of(dtype)});
  }
  return tensors;
}

Intent draw_call(const Shape& shape, Rng& rng) {
  Intent call;
  const auto roll = double(rng.next() >> 11) * 0x1.0p-53;
  if (roll < shape.broadcast)
    call.call = Call::broadcast;
  else if (roll < shape.broadcast + shape.barrier)
    call.call = Call::barrier;
  else if (roll < shape.broadcast + shape.barrier + shape.sync_state)
    call.call = Call::sync_state;
  else if (rng.chance(shape.blocks))
    call.call = static_cast<Call>(std::uint8_t(Call::reduce_scatter) + rng.below(5));
  else if (rng.chance(shape.transfers))
    call.call = Call::transfer;
  if (rng.chance(shape.run_scope)) call.scope = Scope::run;
  if (call.call == Call::transfer) call.scope = Scope::pair;
  if (call.call != Call::barrier && call.call != Call::sync_state) call.tensors = draw_tensors(shape, rng);
  if (in_blocks(call.call))
    for (auto& tensor : call.tensors) tensor.count /= 3;
  call.from = std::uint32_t(rng.below(4));
  call.to = std::uint32_t(rng.below(4));
  call.in_place = rng.chance(shape.in_place);
  call.weighted = call.call == Call::all_reduce && rng.chance(shape.weighted);
  if (call.call == Call::all_reduce || call.call == Call::broadcast) {  // without a mesh it is the ring
    constexpr Algorithm plans[] = {Algorithm::ring,      Algorithm::ring,     Algorithm::ring,
                                   Algorithm::ring,      Algorithm::direct,   Algorithm::exchange,
                                   Algorithm::two_level, Algorithm::automatic};
    call.algorithm = plans[rng.below(std::size(plans))];
  }
  const auto is_float = [](const TensorShape& tensor) { return is_floating(tensor.dtype); };
  if (call.call == Call::all_reduce && std::all_of(call.tensors.begin(), call.tensors.end(), is_float))
    call.quantized = rng.chance(0.3);
  call.root = std::uint32_t(rng.below(4));
  if (rng.chance(shape.raise)) call.on_loss = OnLoss::raise;
  if (call.call == Call::all_reduce && rng.chance(shape.remake)) call.on_loss = OnLoss::remake;
  if (rng.chance(shape.timeout)) call.timeout = 1 + Duration(rng.below(500 * millisecond));
  if (rng.chance(shape.cancel)) {
    call.canceller = std::uint32_t(rng.below(4));
    call.cancel_after = Duration(rng.below(std::uint64_t(10 * millisecond) >> rng.below(8)));
  }
  return call;
}

}  // namespace

Round round_of(std::uint64_t seed, const Shape& shape, std::uint32_t boundary, std::uint32_t number) {
  Rng rng(mix64(seed ^ mix64(boundary * 1000 + number)));
  Round round;
  round.sloppy = rng.chance(shape.sloppy);
  round.islands = number + 1 >= shape.rounds_max ? 1 : 0;
  if (rng.chance(shape.probe)) round.probe_ms = 1 + std::uint32_t(rng.below(40));
  for (auto batches = rng.below(shape.batches_max + 1); batches > 0; --batches) {
    auto& batch = round.batches.emplace_back();
    const bool named = rng.chance(shape.named);
    for (std::uint32_t i = 0, n = 1 + std::uint32_t(rng.below(shape.operations_max)); i < n; ++i) {
      batch.push_back(draw_call(shape, rng));
      if (named) batch.back().name = 1 + i;
    }
  }
  return round;
}

Descriptor descriptor_of(const Intent& call, PeerId root, std::uint32_t blocks) {
  Descriptor d;
  d.call = call.call;
  d.on_loss = call.on_loss;
  d.weighted = call.weighted;
  d.algorithm = call.algorithm;
  if (call.quantized) d.quantization = Quantization::int8, d.quantization_block = 256;
  if (call.weighted) d.op = ReduceOp::avg;
  if (has_root(call.call)) d.root = root;
  if (in_blocks(call.call)) d.blocks = blocks;
  d.tensors = call.tensors;
  return d;
}

}  // namespace pccl::sim
