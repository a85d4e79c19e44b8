// Thousands of schedules of the production protocol and executor, drawn from seeds.
//   PCCL_SIM_SCHEDULES=n   how many; PCCL_SIM_SEED=n [PCCL_SIM_FLAVOUR=name]   replays one with a trace
#include <cstdio>
#include <cstdlib>

#include "check.hpp"
#include "sim/world.hpp"

namespace pccl::sim {

TEST(many_schedules) {
  const auto* seed = std::getenv("PCCL_SIM_SEED");
  if (seed != nullptr) {
    World world(draw({}, std::strtoull(seed, nullptr, 10)), true);
    CHECK_EQ(world.run(), "");
    return;
  }
  const auto* count = std::getenv("PCCL_SIM_SCHEDULES");
  const auto schedules = count != nullptr ? std::strtoull(count, nullptr, 10) : 10000;
  std::uint64_t events = 0, failed = 0, commits=0, failures=0, retries=0, joined=0, skips=0, evictions=0;
  for (std::uint64_t i = 1; i <= schedules; ++i) {
    World world(draw({}, i));
    const auto what = world.run();
    events += world.queue.handled();
    commits += world.oracle.commits; failures += world.oracle.failures; retries += world.oracle.retries; joined += world.oracle.joined; skips += world.oracle.skips; evictions += world.oracle.evictions;
    if (what.empty()) continue;
    std::printf("seed %llu: %s\n", (unsigned long long)i, what.c_str());
    CHECK_EQ(what, "");
    if (++failed > 5) break;
  }
  std::printf("%llu events, %llu commits %llu failures %llu retries %llu joined %llu skips %llu evictions\n", (unsigned long long)events, (unsigned long long)commits, (unsigned long long)failures, (unsigned long long)retries, (unsigned long long)joined, (unsigned long long)skips, (unsigned long long)evictions);
}

}  // namespace pccl::sim
