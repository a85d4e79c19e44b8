// The executors of a scene, joined to a network, on expressions for sums.
#pragma once
#include "executor_scene.hpp"
#include "symbolic_store.hpp"

namespace pccl::check {

inline Executor::Options options_of(const Scene& scene) {
  Executor::Options options;
  options.in_place = scene.in_place && scene.world > 1;
  options.eager = scene.eager;
  options.weighted = scene.weighted;
  options.slots_max = scene.slots_max;
  options.window = scene.window;
  options.own_bytes = scene.own_bytes;
  return options;
}

// Every position's executor and store.
inline SymbolicNetwork network_of(Rng& rng, const Scene& scene, const std::vector<Plan>& plans) {
  SymbolicNetwork network(rng, scene.eager);
  const auto options = options_of(scene);
  const Layout layout(scene.shapes, plans[0].segments, scene.chunk_bytes, scene.weighted ? scene.world : 0);
  for (std::uint32_t p = 0; p < scene.world; ++p)
    network.add({plans[p], layout, options}, {layout, p, options.in_place, scene.weighted});
  return network;
}

inline std::uint64_t sent_by_all(const SymbolicNetwork& network) {
  std::uint64_t sent = 0;
  for (const auto& node : network.nodes) sent += node.sent;
  return sent;
}

}  // namespace pccl::check
