// What an operation is about, drawn from a seed, and the plans of its positions.
#pragma once
#include <vector>

#include "base/rng.hpp"
#include "collective/plan.hpp"
#include "tensor_shapes.hpp"

namespace pccl::check {

struct Scene {
  Shapes shapes;
  std::uint32_t world = 1, chunk_bytes = 4096, slots_max = 64, window = 16;
  bool in_place = false, weighted = false, eager = false;
  std::uint64_t own_bytes = 4u << 20;
};

inline Scene random_scene(Rng& rng, bool may_be_weighted) {
  Scene scene;
  scene.world = std::uint32_t(1 + rng.below(9));
  scene.chunk_bytes = std::uint32_t(64 + rng.below(1000));
  scene.shapes = random_shapes(rng, 1 + scene.chunk_bytes * rng.below(12) / 8);
  scene.slots_max = rng.chance(0.5) ? std::uint32_t(rng.below(3)) : 64;
  scene.window = rng.chance(0.5) ? std::uint32_t(1 + rng.below(3)) : 16;
  scene.in_place = rng.chance(0.5);
  scene.weighted = may_be_weighted && rng.chance(0.4);
  scene.eager = rng.chance(0.3);
  if (rng.chance(0.5)) scene.own_bytes = 1 + rng.below(4096);
  if (scene.weighted)
    for (auto& shape : scene.shapes) shape.dtype = static_cast<DType>(1 + rng.below(4));
  return scene;
}

// The plans of all positions, by `make(position)`.
template <class Make> std::vector<Plan> plans_of(std::uint32_t world, Make make) {
  std::vector<Plan> plans;
  for (std::uint32_t p = 0; p < world; ++p) plans.push_back(make(p));
  return plans;
}

inline std::vector<Plan> all_reduce_plans(std::uint32_t world, bool weighted) {
  return plans_of(world, [&](std::uint32_t p) { return plan_ring_all_reduce(p, world, weighted); });
}

inline std::vector<Plan> direct_plans(std::uint32_t world, bool weighted) {
  return plans_of(world, [&](std::uint32_t p) { return plan_direct_all_reduce(p, world, weighted); });
}

inline std::vector<Plan> exchange_plans(std::uint32_t world) {
  return plans_of(world, [&](std::uint32_t p) { return plan_exchange_all_reduce(p, world); });
}

inline std::vector<Plan> two_level_plans(const std::vector<std::uint32_t>& hosts, bool weighted) {
  return plans_of(std::uint32_t(hosts.size()),
                  [&](std::uint32_t p) { return plan_two_level_all_reduce(p, hosts, weighted); });
}

inline std::vector<Plan> broadcast_plans(std::uint32_t world, std::uint32_t root) {
  return plans_of(world, [&](std::uint32_t p) { return plan_ring_broadcast(p, world, root); });
}

}  // namespace pccl::check
