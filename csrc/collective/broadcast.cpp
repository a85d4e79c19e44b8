// Plans of what one position has and others want: broadcasts, and a transfer between two.
#include "collective/plan.hpp"
#include "collective/positions.hpp"

namespace pccl {

namespace {

Step from(std::uint32_t sender, std::uint32_t segment) {
  return {.segment = segment, .merge = Merge::replace, .from = std::int32_t(sender), .write = true};
}

}  // namespace

Plan plan_ring_broadcast(std::uint32_t position, std::uint32_t world, std::uint32_t root) {
  Plan plan{position, world, {}};
  const auto distance = back(position, root, world);
  Step step;
  step.merge = distance == 0 ? Merge::own : Merge::replace;
  step.from = distance == 0 ? -1 : std::int32_t(back(position, 1, world));
  step.write = true;
  if (distance + 1 < world) step.to = {{(position + 1) % world, 0}};
  plan.steps.push_back(std::move(step));
  return plan;
}

// Segment s is for the s-th of those who are not the root: its step 0; step 1 + place(t, s) is segment t.
Plan plan_direct_broadcast(std::uint32_t position, std::uint32_t world, std::uint32_t root) {
  if (world == 1) return plan_ring_broadcast(position, world, root);
  Plan plan{position, world, {}, world - 1};
  if (position == root) {
    each_other(world, root, [&](std::uint32_t other) {
      plan.steps.push_back({.segment = place(other, root), .merge = Merge::own, .write = true});
      plan.steps.back().to = {{other, 0}};
    });
    return plan;
  }
  const auto mine = place(position, root);
  plan.steps.push_back(from(root, mine));
  each_other(world, root, [&](std::uint32_t other) {
    if (other == position) return;
    const auto theirs = place(other, root);
    plan.steps[0].to.push_back({other, std::uint16_t(1 + place(mine, theirs))});
    plan.steps.push_back(from(other, theirs));
  });
  return plan;
}

Plan plan_exchange_broadcast(std::uint32_t position, std::uint32_t world, std::uint32_t root) {
  Plan plan{position, world, {}};
  if (position != root) {
    plan.steps.push_back(from(root, 0));
    return plan;
  }
  plan.steps.push_back({.merge = Merge::own, .write = true});
  each_other(world, root, [&](std::uint32_t other) { plan.steps[0].to.push_back({other, 0}); });
  return plan;
}

Plan plan_transfer(std::uint32_t position) {
  Plan plan{position, 2, {}};
  if (position == 1) {
    plan.steps.push_back(from(0, 0));
  } else {
    plan.steps.push_back({.merge = Merge::own});
    plan.steps[0].to = {{1, 0}};
  }
  return plan;
}

}  // namespace pccl
