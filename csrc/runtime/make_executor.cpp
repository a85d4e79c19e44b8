#include "runtime/make_executor.hpp"

#include <algorithm>

namespace pccl {

namespace {

Plan all_reduce_plan(const Descriptor& d, const Standing& s) {
  const auto wire = d.quantization == Quantization::none ? Wire::element : Wire::quantized;
  if (d.algorithm == Algorithm::exchange) return plan_exchange_all_reduce(s.position, s.world);
  if (d.algorithm == Algorithm::direct) return plan_direct_all_reduce(s.position, s.world, d.weighted, wire);
  return plan_ring_all_reduce(s.position, s.world, d.weighted);
}

Plan block_plan(const Descriptor& d, const Standing& s) {
  switch (d.call) {
    case Call::all_gather:
      return plan_all_gather(s.position, s.world);
    case Call::gather:
      return plan_gather(s.position, s.world, s.root);
    case Call::scatter:
      return plan_scatter(s.position, s.world, s.root);
    case Call::all_to_all:
      return plan_all_to_all(s.position, s.world);
    default:
      return d.algorithm == Algorithm::direct ? plan_direct_reduce_scatter(s.position, s.world)
                                              : plan_ring_reduce_scatter(s.position, s.world);
  }
}

// Parts of sums that one peer holds at most, of one operation.
std::uint32_t window_of(std::uint32_t world, std::uint32_t chunk_bytes) {
  const auto chunks = limits::fold_bytes_max / (std::uint64_t{world} * std::max(chunk_bytes, 1u));
  return std::uint32_t(std::max<std::uint64_t>(chunks, 2));
}

std::unique_ptr<Executor> make_block_executor(const Descriptor& d, const Standing& s) {
  Executor::Options options;
  options.eager = s.eager;
  options.slots_max = UINT32_MAX;  // there is room in the output for nothing but the result
  const auto blocks = d.call == Call::all_to_all ? s.world * s.world : s.world;
  return std::make_unique<Executor>(block_plan(d, s), Layout::of_blocks(d.tensors, blocks, d.chunk_bytes),
                                    options);
}

}  // namespace

std::unique_ptr<Executor> make_executor(const Descriptor& d, const Standing& s) {
  if (d.call == Call::sync_state) return nullptr;
  if (in_blocks(d.call)) return make_block_executor(d, s);
  Plan plan{s.position, s.world, {}};
  std::uint32_t segments = 1;
  if (d.call == Call::all_reduce) {
    plan = all_reduce_plan(d, s);
    segments = d.algorithm == Algorithm::exchange ? 1 : s.world;
  } else if (d.call == Call::broadcast) {
    plan = plan_ring_broadcast(s.position, s.world, s.root);
  }
  Executor::Options options;
  options.in_place = s.in_place && s.world > 1;
  options.eager = s.eager;
  options.slots_max = s.slots_max;
  options.weighted = d.weighted;
  options.code = {d.quantization, d.quantization_block, d.stochastic};
  options.window = window_of(s.world, d.chunk_bytes);
  return std::make_unique<Executor>(std::move(plan), Layout(d.tensors, segments, d.chunk_bytes, d.weighted),
                                    options);
}

}  // namespace pccl
