// Plans of all positions fit together: what one sends, another expects.
#include <set>

#include "check.hpp"
#include "executor_scene.hpp"

namespace pccl {
namespace {

using check::all_reduce_plans;
using check::broadcast_plans;
using check::direct_plans;
using check::exchange_plans;
using check::plans_of;

// A fold adds what every other position sends for its segment, and the own input, each once, by position.
void check_fold(const Plan& plan, const Step& step) {
  if (step.merge == Merge::collect) {
    REQUIRE(step.fold >= 0 && std::size_t(step.fold) < plan.steps.size());
    CHECK(plan.steps[std::size_t(step.fold)].merge == Merge::fold);
  }
  if (step.merge != Merge::fold) return;
  CHECK_EQ(step.parts.size(), plan.world);
  for (std::uint32_t p = 0; p < plan.world; ++p) {
    if (p == plan.position) {
      CHECK_EQ(step.parts[p], own_part);
      continue;
    }
    const auto& part = plan.steps.at(step.parts[p]);
    CHECK_EQ(part.from, std::int32_t(p));
    CHECK_EQ(part.segment, step.segment);
    CHECK(&plan.steps[std::size_t(part.fold)] == &step);
  }
}

void check_plans(const std::vector<Plan>& plans) {
  std::set<std::tuple<std::uint32_t, std::uint16_t>> fed;
  for (const auto& plan : plans)
    for (const auto& step : plan.steps) {
      CHECK_EQ(step.from < 0, step.merge == Merge::own || step.merge == Merge::fold);
      check_fold(plan, step);
      for (const auto& hop : step.to) {
        REQUIRE(hop.position < plans.size());
        REQUIRE(hop.step < plans[hop.position].steps.size());
        const auto& next = plans[hop.position].steps[hop.step];
        CHECK_EQ(next.from, std::int32_t(plan.position));
        CHECK_EQ(next.segment, step.segment);
        CHECK_EQ(next.in, step.out);
        CHECK(fed.emplace(hop.position, hop.step).second);
      }
    }
  std::size_t expecting = 0;
  for (const auto& plan : plans)
    for (const auto& step : plan.steps) expecting += step.from >= 0;
  CHECK_EQ(fed.size(), expecting);
}

// Every position writes each segment once, and finishes one sum.
void check_outcome(const std::vector<Plan>& plans, std::size_t segments) {
  check_plans(plans);
  for (const auto& plan : plans) {
    std::set<std::uint32_t> written, finished;
    for (const auto& step : plan.steps) {
      if (step.write) CHECK(written.insert(step.segment).second);
      if (step.finish) CHECK(finished.insert(step.segment).second);
    }
    CHECK_EQ(written.size(), segments);
    CHECK_EQ(finished.size(), plans.size() == 1 ? 0u : 1u);
  }
}

TEST(plans_fit_together) {
  for (std::uint32_t world = 1; world <= 9; ++world) {
    for (const bool weighted : {false, true}) {
      check_outcome(all_reduce_plans(world, weighted), world * (weighted ? 2 : 1));
      check_outcome(direct_plans(world, weighted), world * (weighted ? 2 : 1));
    }
    check_outcome(exchange_plans(world), 1);
    std::vector<Plan> quantized;
    for (std::uint32_t p = 0; p < world; ++p)
      quantized.push_back(plan_direct_all_reduce(p, world, false, Wire::quantized));
    check_outcome(quantized, world);
    for (std::uint32_t root = 0; root < world; ++root) {
      check_plans(broadcast_plans(world, root));
      check_plans(plans_of(world, [&](std::uint32_t p) { return plan_direct_broadcast(p, world, root); }));
      check_plans(plans_of(world, [&](std::uint32_t p) { return plan_exchange_broadcast(p, world, root); }));
    }
    check_plans(plans_of(world, [&](std::uint32_t p) { return plan_all_to_all(p, world); }));
    check_plans(plans_of(world, [&](std::uint32_t p) { return plan_ring_reduce_scatter(p, world); }));
  }
}

}  // namespace
}  // namespace pccl
