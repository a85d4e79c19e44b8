// What the peers' programs do: a function of seed, boundary and round, so that all peers, and a joiner from
// the boundary at which it comes in, make the same calls.
#pragma once
#include "protocol/session.hpp"
#include "sim/scenario.hpp"

namespace pccl::sim {

struct Intent {
  Call call = Call::all_reduce;
  Scope scope = Scope::group;
  std::uint32_t name = 0;
  std::vector<TensorShape> tensors;
  bool in_place = false, weighted = false;
  Algorithm algorithm = Algorithm::automatic;
  bool quantized = false;
  std::uint32_t from = 0, to = 0;  // of a transfer: islands that were there from the beginning
  OnLoss on_loss = OnLoss::retry;
  Duration timeout = never;
  std::uint32_t root = 0;                // position in the group when the round began
  std::uint32_t canceller = UINT32_MAX;  // process that cancels it
  Duration cancel_after = 0;
  bool remade() const { return on_loss == OnLoss::remake && call == Call::all_reduce; }
};

struct Round {
  std::vector<std::vector<Intent>> batches;  // all of a batch are in flight together
  bool sloppy = false;
  std::uint32_t islands = 0;   // what update_topology() at its end waits for
  std::uint32_t probe_ms = 0;  // or it measures the links
};

Round round_of(std::uint64_t seed, const Shape& shape, std::uint32_t boundary, std::uint32_t round);
// `blocks`: of a call in blocks, the peers that it is for.
Descriptor descriptor_of(const Intent& call, PeerId root, std::uint32_t blocks);

}  // namespace pccl::sim
