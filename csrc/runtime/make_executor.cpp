#include "runtime/make_executor.hpp"

#include <algorithm>

namespace pccl {

namespace {

Plan all_reduce_plan(const Descriptor& d, const Standing& s) {
  const auto wire = d.quantization == Quantization::none ? Wire::element : Wire::quantized;
  if (d.algorithm == Algorithm::exchange) return plan_exchange_all_reduce(s.position, s.world);
  if (d.algorithm == Algorithm::two_level && wire == Wire::element && s.hosts.size() == s.world)
    return plan_two_level_all_reduce(s.position, s.hosts, d.weighted);
  if (d.algorithm == Algorithm::direct || d.algorithm == Algorithm::two_level)
    return plan_direct_all_reduce(s.position, s.world, d.weighted, wire);
  return plan_ring_all_reduce(s.position, s.world, d.weighted);
}

Plan broadcast_plan(const Descriptor& d, const Standing& s) {
  if (d.algorithm == Algorithm::exchange) return plan_exchange_broadcast(s.position, s.world, s.root);
  if (d.algorithm == Algorithm::direct) return plan_direct_broadcast(s.position, s.world, s.root);
  return plan_ring_broadcast(s.position, s.world, s.root);
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
std::uint32_t window_of(const Descriptor& d, const Standing& s) {
  const std::uint64_t parts = d.algorithm == Algorithm::two_level ? two_level_parts(s.hosts) : s.world;
  const auto chunks =
      limits::fold_bytes_max / (std::max<std::uint64_t>(parts, 1) * std::max(d.chunk_bytes, 1u));
  return std::uint32_t(std::max<std::uint64_t>(chunks, 2));
}

std::unique_ptr<Executor> make_block_executor(const Descriptor& d, const Standing& s) {
  Executor::Options options;
  options.eager = s.eager;
  options.own_bytes = s.own_bytes;
  options.slots_max = UINT32_MAX;  // there is room in the output for nothing but the result
  options.window = window_of(d, s);
  return std::make_unique<Executor>(block_plan(d, s), Layout::of_blocks(d.tensors, s.world, d.chunk_bytes),
                                    options);
}

// Sums that grow here are as many parts that wait, chunk by chunk.
std::unique_ptr<Executor> make_coded_executor(const Descriptor& d, const Standing& s) {
  if (s.sums == nullptr || fault_of(*s.sums, s.world)) return nullptr;
  auto plan = plan_coded_reduce(s.position, s.world, *s.sums);
  Executor::Options options;
  options.eager = s.eager;
  options.slots_max = UINT32_MAX;
  const auto parts = std::max<std::uint64_t>(plan.steps.size(), 1) * std::max(d.chunk_bytes, 1u);
  options.window = std::uint32_t(std::max<std::uint64_t>(limits::fold_bytes_max / parts, 2));
  return std::make_unique<Executor>(std::move(plan),
                                    Layout::of_blocks(d.tensors, plan.segments, d.chunk_bytes), options);
}

Plan plan_of(const Descriptor& d, const Standing& s) {
  if (d.call == Call::all_reduce) return all_reduce_plan(d, s);
  if (d.call == Call::broadcast) return broadcast_plan(d, s);
  if (d.call == Call::transfer) return plan_transfer(s.position);
  return {s.position, s.world, {}};
}

}  // namespace

std::vector<std::uint32_t> hosts_of(const View& view, const std::vector<PeerId>& peers) {
  std::vector<std::uint32_t> hosts;
  auto unknown = UINT32_MAX;
  for (const auto peer : peers) {
    const auto* member = view.find(peer);
    hosts.push_back(member != nullptr && member->host != 0 ? member->host : unknown--);
  }
  return hosts;
}

std::unique_ptr<Executor> make_executor(const Descriptor& d, const Standing& s) {
  if (d.call == Call::sync_state) return nullptr;
  if (d.call == Call::coded_reduce) return make_coded_executor(d, s);
  if (in_blocks(d.call)) return make_block_executor(d, s);
  Executor::Options options;
  options.in_place = s.in_place && s.world > 1;
  options.eager = s.eager;
  options.own_bytes = s.own_bytes;
  options.slots_max = s.slots_max;
  options.weighted = d.weighted;
  options.code = {d.quantization, d.quantization_block, d.stochastic};
  options.window = window_of(d, s);
  auto plan = plan_of(d, s);
  Layout layout(d.tensors, plan.segments, d.chunk_bytes, d.weighted ? s.world : 0);
  return std::make_unique<Executor>(std::move(plan), std::move(layout), options);
}

}  // namespace pccl
