// Frames that an executor does not wait for never land.
#include <set>

#include "check.hpp"
#include "collective/executor.hpp"
#include "executor_scene.hpp"

namespace pccl {
namespace {

using check::random_scene;
using check::Scene;

using Arrival = std::pair<std::uint16_t, std::uint32_t>;  // step, chunk

std::set<Arrival> arrivals_of(const Plan& plan, const Layout& layout) {
  std::set<Arrival> arrivals;
  for (std::uint16_t s = 0; s < plan.steps.size(); ++s) {
    const auto segment = plan.steps[s].segment;
    for (auto c = layout.segment_begin(segment); c < layout.segment_end(segment); ++c)
      if (plan.steps[s].from >= 0) arrivals.emplace(s, c);
  }
  return arrivals;
}

// Frames at random, many of them nearly right: those that the plan expects land, each once.
void bombard(Executor& executor, Rng& rng, const Scene& scene, const std::set<Arrival>& expected) {
  const auto& plan = executor.plan();
  const auto any = [&](std::uint64_t near) {
    return rng.chance(0.9) ? rng.below(near + 2) : rng.next() >> rng.below(64);
  };
  std::set<Arrival> landed;
  for (int i = 0; i < 4000; ++i) {
    const auto from =
        rng.chance(0.5) ? (plan.position + scene.world - 1) % scene.world : std::uint32_t(any(scene.world));
    const auto step = std::uint16_t(any(plan.steps.size()));
    const auto chunk = std::uint32_t(any(executor.layout().chunks()));
    const bool real = expected.contains({step, chunk}) && std::int32_t(from) == plan.steps[step].from;
    const auto right = real ? executor.chunk_bytes(chunk, plan.steps[step].in) : 0;
    const auto bytes = rng.chance(0.8) && real ? right : std::uint32_t(any(scene.chunk_bytes));
    const auto landing = executor.land(from, step, chunk, bytes);
    const bool takes = real && bytes == right && !landed.contains({step, chunk});
    CHECK_EQ(landing.kind != Landing::Kind::skip, takes);
    CHECK(landing.kind != Landing::Kind::park);
    if (takes) landed.emplace(step, chunk);
  }
}

TEST(nothing_unexpected_lands) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    const auto scene = random_scene(rng, true);
    const auto position = std::uint32_t(rng.below(scene.world));
    const bool broadcast = !scene.weighted && rng.chance(0.3);
    const auto plan = broadcast
                          ? plan_ring_broadcast(position, scene.world, std::uint32_t(rng.below(scene.world)))
                          : plan_ring_all_reduce(position, scene.world, scene.weighted);
    const Layout layout(scene.shapes, plan.segments, scene.chunk_bytes, scene.weighted ? scene.world : 0);
    Executor executor(plan, layout,
                      {scene.in_place && scene.world > 1, scene.eager, scene.weighted, scene.slots_max});
    const auto expected = arrivals_of(plan, layout);
    bombard(executor, rng, scene, expected);
    CHECK(!executor.complete() || expected.empty());
    std::vector<Work> work;
    for (bool more = executor.start(work); more;) more = executor.copy_own(work);
    CHECK_EQ(executor.complete(), expected.empty());
  }
}

}  // namespace
}  // namespace pccl
