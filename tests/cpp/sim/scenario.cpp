#include "sim/scenario.hpp"

#include <algorithm>
#include <numeric>

namespace pccl::sim {

const char* name(FaultKind kind) {
  constexpr const char* names[] = {"kill",           "silent kill",      "pause",          "link loss",
                                   "half-open link", "control loss",     "master restart", "second master",
                                   "join",           "unreachable join", "broken attempt", "restart"};
  return names[static_cast<std::uint8_t>(kind)];
}

namespace {

double uniform(Rng& rng) { return double(rng.next() >> 11) * 0x1.0p-53; }

FaultKind draw_kind(const Flavour& flavour, Rng& rng) {
  const auto total = std::accumulate(flavour.weights.begin(), flavour.weights.end(), 0.0);
  auto at = uniform(rng) * total;
  for (std::uint32_t kind = 0; kind < flavour.weights.size(); ++kind)
    if ((at -= flavour.weights[kind]) < 0) return static_cast<FaultKind>(kind);
  return FaultKind::kill;
}

// Short for most, long enough to outlast a heartbeat limit for some.
Duration draw_length(Rng& rng) {
  const Duration scales[] = {millisecond, 30 * millisecond, 300 * millisecond, 3 * second};
  return Duration(rng.below(std::uint64_t(scales[rng.below(4)])));
}

Delays draw_delays(const Flavour& flavour, Rng& rng, Duration scale) {
  Delays delays;
  delays.least = scale / 10 + Duration(rng.below(std::uint64_t(scale)));
  delays.spread = Duration(1 + rng.below(std::uint64_t(4 * scale)));
  delays.tail_chance = rng.chance(0.5) ? 0 : uniform(rng) * flavour.tail_chance_max;
  delays.tail = Duration(1 + rng.below(std::uint64_t(flavour.tail_max >> rng.below(8))));
  return delays;
}

}  // namespace

Scenario draw(const Flavour& flavour, std::uint64_t seed, const Rules& rules) {
  Rng rng(mix64(seed) ^ 0x5eed);
  Scenario s;
  s.seed = seed;
  s.flavour = flavour.name;
  s.rules = rules;
  s.shape = flavour.shape;
  s.timing.hints_hold = 0;
  s.timing.link_report = 20 * millisecond;
  s.timing.links_settle = 5 * millisecond;
  s.timing.deadline_floor = 3600 * second;  // the net below all others would hide what it catches
  if (rng.chance(flavour.island_runs)) {
    s.islands = 2;
    s.island_size = 2;
  } else {
    s.islands = flavour.peers_min + std::uint32_t(rng.below(flavour.peers_max - flavour.peers_min + 1));
  }
  s.hosts = 1 + std::uint32_t(rng.below(4));
  s.store = rng.chance(flavour.store);
  s.keepers = rng.chance(flavour.keepers) ? 1 + std::uint32_t(rng.below(3)) : 0;
  if (flavour.one_role) s.struck = rng.chance(0.5) ? Role::keeper : Role::trainer;
  s.through_codec = rng.chance(0.1);
  s.split_frames = rng.chance(0.4);
  s.frames_in_flight = 1 + std::uint32_t(rng.below(4));
  s.eager_kib = std::uint32_t(rng.below(4)) * 16;
  s.slots = rng.chance(0.3) ? 1 + std::uint32_t(rng.below(3)) : 64;
  s.data = draw_delays(flavour, rng, 50 * microsecond);
  s.control = draw_delays(flavour, rng, (rng.chance(flavour.slow_control) ? 3000 : 50) * microsecond);
  const auto faults =
      flavour.faults_min + std::uint32_t(rng.below(flavour.faults_max - flavour.faults_min + 1));
  for (std::uint32_t i = 0; i < faults; ++i)
    s.faults.push_back(
        {draw_kind(flavour, rng), 20 + rng.below(flavour.events), rng.next(), draw_length(rng)});
  std::sort(s.faults.begin(), s.faults.end(),
            [](const Fault& a, const Fault& b) { return a.at_event < b.at_event; });
  s.head_start_kib = std::uint32_t(rng.below(3)) * 8;
  return s;
}

}  // namespace pccl::sim
