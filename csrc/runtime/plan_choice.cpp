#include "runtime/plan_choice.hpp"

#include <algorithm>

#include "collective/layout.hpp"

namespace pccl {

namespace {

constexpr std::uint32_t stripes_assumed = 2;  // for the chunk size, where the view does not say

// Where the mesh is not complete, or the plan does not exist for a call, the ring does it.
Algorithm choose_algorithm(const Descriptor& d, const PlanHints& hints, std::uint32_t world, bool one_place) {
  if (in_blocks(d.call))  // parts that wait must stay few where all are added at their owner
    return d.call != Call::reduce_scatter || total_bytes(d) <= limits::fold_bytes_max ? Algorithm::direct
                                                                                      : Algorithm::ring;
  const bool quantized = d.quantization != Quantization::none;
  const bool meshed = hints.mesh && d.call == Call::all_reduce && world > 1;
  if (meshed && quantized) return Algorithm::direct;  // every contribution is encoded once
  if (!meshed || d.algorithm == Algorithm::ring || d.algorithm == Algorithm::two_level)
    return Algorithm::ring;
  const auto bytes = total_bytes(d);
  const bool small =
      bytes <= limits::exchange_bytes_max && world <= limits::exchange_world_max && !d.weighted;
  if (d.algorithm == Algorithm::exchange) return small ? Algorithm::exchange : Algorithm::direct;
  if (d.algorithm == Algorithm::direct) return Algorithm::direct;
  if (small) return Algorithm::exchange;
  // Where every owner reads all parts in place, each byte is read once and written once, whatever the size.
  return bytes <= limits::direct_bytes_max || one_place ? Algorithm::direct : Algorithm::ring;
}

}  // namespace

bool in_one_place(const View& view, const std::vector<PeerId>& peers) {
  const auto* first = peers.empty() ? nullptr : view.find(peers.front());
  return first != nullptr && first->host != 0 && std::all_of(peers.begin(), peers.end(), [&](PeerId peer) {
           const auto* member = view.find(peer);
           return member != nullptr && member->host == first->host && member->in_place;
         });
}

std::uint64_t total_bytes(const Descriptor& d) {
  std::uint64_t bytes = 0;
  for (const auto& tensor : d.tensors) bytes += tensor.count * size_of(tensor.dtype);
  return bytes * std::max(d.blocks, 1u);
}

bool moves_data(const Descriptor& d) {
  return d.call == Call::all_reduce || d.call == Call::broadcast || in_blocks(d.call);
}

Descriptor plan_descriptor(const Descriptor& descriptor, const PlanHints& hints, std::uint32_t world,
                           bool one_place) {
  auto planned = descriptor;
  planned.algorithm = choose_algorithm(planned, hints, world, one_place);
  if (planned.algorithm != Algorithm::direct) planned.quantization = Quantization::none;
  // What stays where it is overlaps with nothing, and only costs a message. Blocks of what is quantized begin
  // with each chunk: those stay the same on every way.
  const bool whole = one_place && planned.quantization == Quantization::none;
  const auto stripes = whole ? 1 : hints.stripes != 0 ? hints.stripes : stripes_assumed;
  const bool cut = descriptor.call == Call::all_reduce && planned.algorithm != Algorithm::exchange;
  const auto parts = cut ? world : 1;
  if (!planned.tensors.empty())
    planned.chunk_bytes = choose_chunk_bytes(total_bytes(planned), parts, stripes, hints.chunk_bytes);
  return planned;
}

}  // namespace pccl
