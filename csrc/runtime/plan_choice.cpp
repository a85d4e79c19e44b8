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
  if (d.call != Call::all_reduce || !meshed) return only(Algorithm::ring);
  if (d.quantization != Quantization::none) return only(Algorithm::direct);
  const auto both = only(Algorithm::ring) | only(Algorithm::direct);
  return AlgorithmSet(d.weighted ? both : both | only(Algorithm::exchange));
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
Algorithm block_algorithm(const Descriptor& d) {
  return d.call != Call::reduce_scatter || total_bytes(d) <= limits::fold_bytes_max ? Algorithm::direct
                                                                                    : Algorithm::ring;
}

}  // namespace

std::uint64_t total_bytes(const Descriptor& d) {
  std::uint64_t bytes = 0;
  for (const auto& tensor : d.tensors) bytes += tensor.count * size_of(tensor.dtype);
  return bytes * std::max(d.blocks, 1u);
}

bool moves_data(const Descriptor& d) {
  return d.call == Call::all_reduce || d.call == Call::broadcast || in_blocks(d.call);
}

Descriptor plan_descriptor(const Descriptor& descriptor, const PlanHints& hints, std::uint32_t group,
                           std::uint32_t world) {
  auto planned = descriptor;
  if (in_blocks(descriptor.call)) {
    planned.algorithm = block_algorithm(descriptor);
    const auto stripes = hints.stripes != 0 ? hints.stripes : stripes_assumed;
    if (!planned.tensors.empty())
      planned.chunk_bytes = choose_chunk_bytes(total_bytes(planned), 1, stripes, hints.chunk_bytes);
    return planned;
  }
  const auto choice = choose_plan(hints, group, request_of(descriptor, hints, world));
  planned.algorithm = choice.algorithm;
  if (planned.algorithm != Algorithm::direct) planned.quantization = Quantization::none;
  if (!planned.tensors.empty()) planned.chunk_bytes = choice.chunk_bytes;
  return planned;
}

}  // namespace pccl
