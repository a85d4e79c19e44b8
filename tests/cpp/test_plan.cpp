// Plans of all positions fit together: what one sends, another expects.
#include <set>

#include "check.hpp"
#include "executor_scene.hpp"

namespace pccl {
namespace {

using check::all_reduce_plans;
using check::broadcast_plans;

void check_plans(const std::vector<Plan>& plans) {
  std::set<std::tuple<std::uint32_t, std::uint16_t>> fed;
  for (const auto& plan : plans)
    for (const auto& step : plan.steps) {
      CHECK_EQ(step.from < 0, step.merge == Merge::own);
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

TEST(plans_fit_together) {
  for (std::uint32_t world = 1; world <= 9; ++world) {
    for (const bool weighted : {false, true}) {
      const auto plans = all_reduce_plans(world, weighted);
      check_plans(plans);
      for (const auto& plan : plans) {
        std::set<std::uint32_t> written, finished;
        for (const auto& step : plan.steps) {
          if (step.write) CHECK(written.insert(step.segment).second);
          if (step.finish) CHECK(finished.insert(step.segment).second);
        }
        CHECK_EQ(written.size(), world * (weighted ? 2 : 1));
        CHECK_EQ(finished.size(), world == 1 ? 0u : 1u);
      }
    }
    for (std::uint32_t root = 0; root < world; ++root) check_plans(broadcast_plans(world, root));
  }
}

}  // namespace
}  // namespace pccl
