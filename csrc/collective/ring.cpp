#include "collective/plan.hpp"
#include "collective/positions.hpp"

namespace pccl {

namespace {

// The weights are all-gathered as hidden segments world..2*world-1, so that every owner can divide by their
// sum.
void gather_weights(Plan& plan) {
  const auto world = plan.world, next = (plan.position + 1) % world, prev = back(plan.position, 1, world);
  const auto base = std::uint16_t(plan.steps.size());
  for (std::uint32_t t = 0; t < world; ++t) {
    Step step;
    step.segment = world + back(plan.position, t, world);
    step.merge = t == 0 ? Merge::own : Merge::replace;
    step.from = t == 0 ? -1 : std::int32_t(prev);
    step.write = true;
    if (t + 1 < world) step.to = {{next, std::uint16_t(base + t + 1)}};
    plan.steps.push_back(std::move(step));
  }
}

}  // namespace

Plan plan_ring_all_reduce(std::uint32_t position, std::uint32_t world, bool weighted) {
  Plan plan{position, world, {}, world};
  if (world == 1) {
    for (std::uint32_t segment = 0; segment < (weighted ? 2u : 1u); ++segment)
      plan.steps.push_back({.segment = segment, .merge = Merge::own, .write = true, .to = {}});
    return plan;
  }
  const auto next = (position + 1) % world, prev = back(position, 1, world);
  const auto last = 2 * world - 2;
  for (std::uint32_t t = 0; t <= last; ++t) {
    Step step;
    step.segment = back(position, t, world);
    step.merge = t == 0 ? Merge::own : t < world ? Merge::reduce : Merge::replace;
    step.from = t == 0 ? -1 : std::int32_t(prev);
    step.finish = t == world - 1;
    step.write = t >= world - 1;
    // Partial sums stay in the accumulator type; an input that nobody has touched and a finished sum are
    // elements.
    const auto leaves = [&](std::uint32_t s) {
      return s >= world - 1 || (s == 0 && !weighted) ? Wire::element : Wire::accumulator;
    };
    step.out = leaves(t);
    step.in = t == 0 ? Wire::element : leaves(t - 1);
    if (t == 0) step.gate = std::int32_t(world);  // where the sum of its segment comes by
    if (t < last) step.to = {{next, std::uint16_t(t + 1)}};
    plan.steps.push_back(std::move(step));
  }
  if (weighted) gather_weights(plan);
  return plan;
}

}  // namespace pccl
