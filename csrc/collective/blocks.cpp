// Plans of calls whose tensors are in blocks, one per peer: a segment is a block. Everybody sends straight to
// whom it concerns; only a large reduce-scatter goes round the ring, where nobody must hold many parts.
#include "collective/plan.hpp"
#include "collective/positions.hpp"

namespace pccl {

namespace {

Step own(std::uint32_t segment, bool write) {
  return {.segment = segment, .merge = Merge::own, .write = write};
}

Step from(std::uint32_t sender, std::uint32_t segment) {
  return {.segment = segment, .merge = Merge::replace, .from = std::int32_t(sender), .write = true};
}

}  // namespace

// Step 0 is the own block, step 1 + place(p) that of position p.
Plan plan_all_gather(std::uint32_t position, std::uint32_t world) {
  Plan plan{position, world, {own(position, true)}, world};
  each_other(world, position, [&](std::uint32_t to) {
    plan.steps[0].to.push_back({to, std::uint16_t(1 + place(position, to))});
  });
  each_other(world, position, [&](std::uint32_t sender) { plan.steps.push_back(from(sender, sender)); });
  return plan;
}

Plan plan_gather(std::uint32_t position, std::uint32_t world, std::uint32_t root) {
  Plan plan{position, world, {own(position, position == root)}, world};
  if (position != root)
    plan.steps[0].to = {{root, std::uint16_t(1 + place(position, root))}};
  else
    each_other(world, root, [&](std::uint32_t sender) { plan.steps.push_back(from(sender, sender)); });
  return plan;
}

Plan plan_scatter(std::uint32_t position, std::uint32_t world, std::uint32_t root) {
  Plan plan{position, world, {}, world};
  if (position != root) {
    plan.steps.push_back(from(root, position));
    return plan;
  }
  plan.steps.push_back(own(root, true));
  each_other(world, root, [&](std::uint32_t to) {
    plan.steps.push_back(own(to, false));
    plan.steps.back().to = {{to, 0}};
  });
  return plan;
}

// Segment d goes from each position to the one d places later, as step d there and world - 1 + d here.
Plan plan_all_to_all(std::uint32_t position, std::uint32_t world) {
  Plan plan{position, world, {own(0, true)}, world};
  for (std::uint32_t d = 1; d < world; ++d) {
    plan.steps.push_back(own(d, false));
    plan.steps.back().to = {{(position + d) % world, std::uint16_t(world - 1 + d)}};
  }
  for (std::uint32_t d = 1; d < world; ++d) plan.steps.push_back(from(back(position, d, world), d));
  return plan;
}

// As the first half of the direct all-reduce: the owner adds in the order of positions.
Plan plan_direct_reduce_scatter(std::uint32_t position, std::uint32_t world) {
  if (world == 1) return {position, world, {own(0, true)}};
  Plan plan{position, world, {}, world};
  const auto others = std::uint16_t(world - 1);
  each_other(world, position, [&](std::uint32_t owner) {
    plan.steps.push_back(own(owner, false));
    plan.steps.back().to = {{owner, std::uint16_t(others + place(position, owner))}};
  });
  Step fold{.segment = position, .merge = Merge::fold, .write = true, .finish = true};
  for (std::uint32_t p = 0; p < world; ++p)
    fold.parts.push_back(p == position ? own_part : std::uint16_t(others + place(p, position)));
  each_other(world, position, [&](std::uint32_t sender) {
    plan.steps.push_back(
        {.segment = position, .merge = Merge::collect, .from = std::int32_t(sender), .fold = 2 * others});
  });
  plan.steps.push_back(std::move(fold));
  return plan;
}

// Segment s starts at position s + 1 and is finished by its owner, position s, who tells position s + 1: so
// many may be on their way.
Plan plan_ring_reduce_scatter(std::uint32_t position, std::uint32_t world) {
  if (world == 1) return {position, world, {own(0, true)}};
  Plan plan{position, world, {}, world};
  const auto next = (position + 1) % world, prev = back(position, 1, world);
  for (std::uint32_t t = 0; t < world; ++t) {
    Step step{.segment = back(position, t + 1, world)};
    step.merge = t == 0 ? Merge::own : Merge::reduce;
    step.from = t == 0 ? -1 : std::int32_t(prev);
    step.finish = step.write = step.signals = t == world - 1;
    step.in = t <= 1 ? Wire::element : Wire::accumulator;
    step.out = t == 0 || step.finish ? Wire::element : Wire::accumulator;
    if (t == 0) step.gate = std::int32_t(world);
    step.to = {{next, std::uint16_t(t + 1)}};
    plan.steps.push_back(std::move(step));
  }
  plan.steps.push_back({.segment = prev, .merge = Merge::signal, .from = std::int32_t(prev)});
  return plan;
}

}  // namespace pccl
