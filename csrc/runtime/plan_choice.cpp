#include "runtime/plan_choice.hpp"

#include <algorithm>

#include "collective/layout.hpp"
#include "kernels/quantize.hpp"
#include "protocol/cost.hpp"

namespace pccl {

namespace {

constexpr std::uint32_t stripes_assumed = 2;  // for the chunk size of calls in blocks

// What make_executor() can carry out, whatever would be fastest. Quantized: every contribution is encoded
// once, and not at every hop.
AlgorithmSet available(const Descriptor& d, bool meshed) {
  if ((d.call != Call::all_reduce && d.call != Call::broadcast) || !meshed) return only(Algorithm::ring);
  if (d.quantization != Quantization::none) return only(Algorithm::direct);
  auto set = only(Algorithm::ring) | only(Algorithm::direct);
  if (d.call == Call::all_reduce) set |= only(Algorithm::two_level);
  return AlgorithmSet(d.weighted ? set : set | only(Algorithm::exchange));
}

PlanRequest request_of(const Descriptor& d, const PlanHints& hints, std::uint32_t world) {
  PlanRequest request;
  request.call = d.call;
  request.peers = world;
  request.bytes = total_bytes(d);
  const kernels::BlockCode code{d.quantization, d.quantization_block, d.stochastic};
  for (const auto& tensor : d.tensors) {
    request.partial_bytes += tensor.count * size_of(accumulator_of(tensor.dtype));
    if (const auto codec = kernels::Codec::of(code, tensor.dtype))
      request.encoded_bytes += codec->encoded_bytes(tensor.count);
  }
  request.algorithm = d.algorithm;
  request.available = available(d, hints.mesh && world > 1);
  request.deterministic = hints.deterministic;
  return request;
}

// Parts that wait must stay few where all are added at their owner.
Algorithm straight_algorithm(const Descriptor& d) {
  if (d.call == Call::transfer || d.call == Call::coded_reduce) return Algorithm::ring;
  return d.call != Call::reduce_scatter || total_bytes(d) <= limits::fold_bytes_max ? Algorithm::direct
                                                                                    : Algorithm::ring;
}

// What stays where it is overlaps with nothing, and only costs a message.
std::uint32_t even_chunks(const Descriptor& d, const PlanHints& hints, std::uint32_t parts,
                          bool in_one_place) {
  if (d.tensors.empty()) return d.chunk_bytes;
  const auto stripes = in_one_place ? 1 : hints.stripes != 0 ? hints.stripes : stripes_assumed;
  return choose_chunk_bytes(total_bytes(d), parts, stripes, hints.chunk_bytes);
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
  return d.call == Call::all_reduce || d.call == Call::broadcast || goes_straight(d.call);
}

Descriptor plan_descriptor(const Descriptor& descriptor, const PlanHints& hints, const Crew& crew) {
  auto planned = descriptor;
  if (goes_straight(descriptor.call)) {
    planned.algorithm = straight_algorithm(descriptor);
    planned.chunk_bytes = even_chunks(planned, hints, 1, crew.in_one_place);
    return planned;
  }
  const auto request = request_of(descriptor, hints, crew.peers);
  const auto choice = choose_plan(hints, crew.group, request);
  planned.algorithm = choice.algorithm;
  planned.chunk_bytes = choice.chunk_bytes;
  if (descriptor.algorithm == Algorithm::two_level && (request.available & only(Algorithm::two_level)) != 0)
    planned.algorithm = Algorithm::two_level;  // also where it has nothing to gain
  // Where every owner reads all parts in place, each byte is read once and written once, whatever the size.
  const bool free = descriptor.algorithm == Algorithm::automatic && !hints.deterministic;
  const bool direct =
      descriptor.call == Call::all_reduce && (request.available & only(Algorithm::direct)) != 0;
  if (crew.in_one_place && free && direct && choice.algorithm == Algorithm::ring)
    planned.algorithm = Algorithm::direct;
  if (planned.algorithm != Algorithm::direct) planned.quantization = Quantization::none;
  // Blocks of what is quantized begin with each chunk: those stay the same on every way.
  if (crew.in_one_place && planned.quantization == Quantization::none) {
    const bool cut = planned.algorithm != Algorithm::exchange &&
                     (descriptor.call == Call::all_reduce || planned.algorithm == Algorithm::direct);
    planned.chunk_bytes = even_chunks(planned, hints, cut ? crew.peers : 1, true);
  }
  if (planned.tensors.empty()) planned.chunk_bytes = descriptor.chunk_bytes;
  return planned;
}

}  // namespace pccl
