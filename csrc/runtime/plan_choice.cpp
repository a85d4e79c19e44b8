#include "runtime/plan_choice.hpp"

#include <algorithm>

#include "collective/layout.hpp"

namespace pccl {

namespace {

constexpr std::uint32_t stripes_assumed = 2;  // for the chunk size, where the view does not say

// Where the mesh is not complete, or the plan does not exist for a call, the ring does it.
Algorithm choose_algorithm(const Descriptor& d, const PlanHints& hints, std::uint32_t world) {
  if (in_blocks(d.call))  // parts that wait must stay few where all are added at their owner
    return d.call != Call::reduce_scatter || total_bytes(d) <= limits::fold_bytes_max ? Algorithm::direct
                                                                                      : Algorithm::ring;
  const bool quantized = d.quantization != Quantization::none;
  const bool meshed = hints.mesh && (d.call == Call::all_reduce || d.call == Call::broadcast) && world > 1;
  if (meshed && quantized) return Algorithm::direct;  // every contribution is encoded once
  if (!meshed || d.algorithm == Algorithm::ring) return Algorithm::ring;
  if (d.algorithm == Algorithm::two_level && d.call == Call::all_reduce) return Algorithm::two_level;
  const auto bytes = total_bytes(d);
  const bool small =
      bytes <= limits::exchange_bytes_max && world <= limits::exchange_world_max && !d.weighted;
  if (d.algorithm == Algorithm::exchange) return small ? Algorithm::exchange : Algorithm::direct;
  if (d.algorithm == Algorithm::direct) return Algorithm::direct;
  if (small) return Algorithm::exchange;
  return bytes <= limits::direct_bytes_max ? Algorithm::direct : Algorithm::ring;
}

}  // namespace

std::uint64_t total_bytes(const Descriptor& d) {
  std::uint64_t bytes = 0;
  for (const auto& tensor : d.tensors) bytes += tensor.count * size_of(tensor.dtype);
  return bytes * std::max(d.blocks, 1u);
}

bool moves_data(const Descriptor& d) {
  return d.call == Call::all_reduce || d.call == Call::broadcast || goes_straight(d.call);
}

Descriptor plan_descriptor(const Descriptor& descriptor, const PlanHints& hints, std::uint32_t world) {
  auto planned = descriptor;
  planned.algorithm = choose_algorithm(planned, hints, world);
  if (planned.algorithm != Algorithm::direct) planned.quantization = Quantization::none;
  const auto stripes = hints.stripes != 0 ? hints.stripes : stripes_assumed;
  const bool cut = (descriptor.call == Call::all_reduce || planned.algorithm == Algorithm::direct) &&
                   planned.algorithm != Algorithm::exchange && !in_blocks(descriptor.call);
  const auto parts = cut ? world : 1;
  if (!planned.tensors.empty())
    planned.chunk_bytes = choose_chunk_bytes(total_bytes(planned), parts, stripes, hints.chunk_bytes);
  return planned;
}

}  // namespace pccl
