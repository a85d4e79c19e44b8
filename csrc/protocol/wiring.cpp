#include "protocol/wiring.hpp"

#include <algorithm>

namespace pccl {

namespace {

// Links on one host that nobody measured, and links that cannot be opened.
constexpr Link inside_host{5'000'000'000, 30 * microsecond};
constexpr Link broken{1, 4 * second};
// A look at the links of many peers must not keep the master from its heartbeats: some 20 ms.
constexpr RingOptions ring_options{.slack_percent = 5, .exact_peers = 12, .work_max = 1'000'000};
// Round trips below change with every load, and decide nothing.
constexpr std::uint32_t rtt_worth_mentioning_us = 500;

std::uint32_t microseconds(Duration time) {
  return std::uint32_t(std::clamp<Duration>(time / microsecond, 0, UINT32_MAX));
}

bool differs(std::uint64_t told, std::uint64_t now) {
  const auto high = std::max(told, now), low = std::min(told, now);
  return high - low > high / 4;
}

bool differs(const GroupPaths& told, const GroupPaths& now) {
  const auto rtt = [](std::uint32_t a, std::uint32_t b) {
    return std::max(a, b) > rtt_worth_mentioning_us && differs(std::uint64_t{a}, std::uint64_t{b});
  };
  return told.group != now.group || differs(told.ring_bandwidth, now.ring_bandwidth) ||
         differs(told.mesh_bandwidth, now.mesh_bandwidth) ||
         differs(told.local_bandwidth, now.local_bandwidth) || rtt(told.ring_rtt_us, now.ring_rtt_us) ||
         rtt(told.mesh_rtt_us, now.mesh_rtt_us) || rtt(told.local_rtt_us, now.local_rtt_us);
}

template <class F> void each_step(const std::vector<PeerId>& ring, F f) {
  for (std::size_t i = 0; i < ring.size(); ++i) f(ring[i], ring[(i + 1) % ring.size()]);
}

}  // namespace

void Wiring::learn(PeerId from, const MeasuredLink& link, Instant now) {
  matrix_.learn(from, link.to, {{link.bandwidth, Duration{link.rtt_us} * microsecond}, link.evidence}, now);
}

// What is known, and what follows from where the peers are.
LinkMatrix Wiring::completed(const GroupRing& group, const PeerPairs& unreachable) const {
  auto links = matrix_;
  for (std::size_t i = 0; i < group.ring.size(); ++i)
    for (std::size_t j = i + 1; j < group.ring.size(); ++j) {
      const auto a = group.ring[i], b = group.ring[j];
      const bool local = group.hosts[i] != 0 && group.hosts[i] == group.hosts[j];
      const bool shut = !unreachable.empty() && unreachable.contains(std::minmax(a, b));
      for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)})
        if (shut || (local && links.at(from, to).bandwidth == 0))
          links.assume(from, to, shut ? broken : inside_host);
    }
  return links;
}

Wiring::Proposal Wiring::propose(const GroupRing& group, const PeerPairs& unreachable, bool mesh) const {
  const auto links = completed(group, unreachable);
  auto best = best_ring(links, group.ring, group.ring, ring_options);
  const auto before = score_ring(links, group.ring), after = score_ring(links, best);
  bool usable = true;
  std::set<std::pair<PeerId, PeerId>> neighbours;
  each_step(group.ring, [&](PeerId a, PeerId b) { neighbours.insert(std::minmax(a, b)); });
  each_step(best, [&](PeerId a, PeerId b) {
    const bool is_new = !neighbours.contains(std::minmax(a, b));
    if (!is_new) return;
    usable = usable && !unreachable.contains(std::minmax(a, b));
    usable = usable && (mesh || matrix_.at(a, b).bandwidth != 0 || matrix_.at(b, a).bandwidth != 0);
  });
  RingReport report;
  report.group = group.group;
  report.adopted = usable && before.bottleneck != 0 && should_adopt(before, after);
  report.bandwidth_before = before.bottleneck, report.bandwidth = after.bottleneck;
  report.latency_before_us = microseconds(before.latency), report.latency_us = microseconds(after.latency);
  report.links = std::uint32_t(group.ring.size() * (group.ring.size() - 1));
  const std::set<PeerId> members(group.ring.begin(), group.ring.end());
  for (const auto from : group.ring)
    for (const auto& entry : matrix_.row(from))
      report.measured += entry.link.bandwidth != 0 && members.contains(entry.to) ? 1 : 0;
  return {std::move(best), report};
}

std::vector<GroupPaths> Wiring::paths(const std::vector<GroupRing>& groups) const {
  std::vector<GroupPaths> all;
  for (const auto& group : groups) {
    const bool placed = std::ranges::find(group.hosts, 0u) == group.hosts.end();
    auto paths = summarise_paths(
        matrix_, group.group, group.ring,
        placed ? std::span<const std::uint32_t>(group.hosts) : std::span<const std::uint32_t>());
    GroupPaths unknown;
    unknown.group = group.group;
    if (paths != unknown) all.push_back(paths);
  }
  return all;
}

bool differ_materially(const std::vector<GroupPaths>& told, const std::vector<GroupPaths>& now) {
  return !std::equal(told.begin(), told.end(), now.begin(), now.end(),
                     [](const auto& a, const auto& b) { return !differs(a, b); });
}

}  // namespace pccl
