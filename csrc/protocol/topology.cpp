#include "protocol/topology.hpp"

#include <algorithm>

#include "protocol/ring_graph.hpp"
#include "protocol/ring_search.hpp"

namespace pccl {

namespace {

// Less than this, and "10 % shorter" is noise of a ring inside one rack.
constexpr Duration latency_worth_mentioning = 500 * microsecond;

// `order` as numbers of `ascending`; empty where it is no order of the same peers.
RingOrder numbers_of(std::span<const PeerId> order, const std::vector<PeerId>& ascending) {
  RingOrder numbers;
  std::vector<bool> seen(ascending.size(), false);
  for (const auto peer : order) {
    const auto it = std::ranges::lower_bound(ascending, peer);
    if (it == ascending.end() || *it != peer || seen[std::size_t(it - ascending.begin())]) return {};
    numbers.push_back(std::uint32_t(it - ascending.begin()));
    seen[numbers.back()] = true;
  }
  return numbers.size() == ascending.size() ? numbers : RingOrder{};
}

RingOrder ring_of(const RingGraph& graph, RingOrder current, const RingOptions& options) {
  // The local search needs four peers to move anything.
  const auto exact = std::clamp(options.exact_peers, 3u, ring_exact_max);
  if (graph.size() <= exact) return exact_ring(graph, options.slack_percent);
  return search_ring(graph, current, options);
}

std::uint32_t microseconds(Duration rtt) {
  return std::uint32_t(std::clamp<Duration>((rtt + 999) / 1000, 0, UINT32_MAX));
}

struct Slowest {
  std::uint64_t bandwidth = 0;
  Duration rtt = 0;
  void add(const Link& link) {
    if (link.bandwidth != 0)
      bandwidth = bandwidth == 0 ? link.bandwidth : std::min(bandwidth, link.bandwidth);
    rtt = std::max(rtt, link.rtt);
  }
};

void count_hosts(GroupPaths& paths, std::span<const std::uint32_t> hosts) {
  std::vector<std::uint32_t> sorted(hosts.begin(), hosts.end());
  std::ranges::sort(sorted);
  std::size_t distinct = 0, fullest = 0;
  for (auto at = sorted.begin(); at != sorted.end(); ++distinct) {
    const auto end = std::upper_bound(at, sorted.end(), *at);
    fullest = std::max(fullest, std::size_t(end - at));
    at = end;
  }
  paths.hosts = std::uint16_t(std::min<std::size_t>(distinct, UINT16_MAX));
  paths.host_peers = std::uint16_t(std::min<std::size_t>(fullest, UINT16_MAX));
}

}  // namespace

std::vector<PeerId> best_ring(const LinkMatrix& matrix, std::vector<PeerId> peers,
                              std::span<const PeerId> current, const RingOptions& options) {
  std::ranges::sort(peers);
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  if (peers.size() < 3) return peers;
  auto now = numbers_of(current, peers);
  if (!now.empty()) std::ranges::rotate(now, std::ranges::find(now, 0u));
  const auto order =
      peers.size() > ring_peers_max ? now : ring_of(RingGraph(matrix, peers), std::move(now), options);
  if (order.empty()) return peers;
  std::vector<PeerId> ring;
  for (const auto number : order) ring.push_back(peers[number]);
  return ring;
}

RingScore score_ring(const LinkMatrix& matrix, std::span<const PeerId> ring) {
  std::vector<PeerId> ascending(ring.begin(), ring.end());
  std::ranges::sort(ascending);
  const auto median = median_link(matrix, ascending);
  RingScore score;
  if (ring.size() < 2) return score;
  score.bottleneck = UINT64_MAX;
  for (std::size_t i = 0; i < ring.size(); ++i) {
    const auto from = ring[i], to = ring[(i + 1) % ring.size()];
    const auto link = assumed_link(matrix, median, from, to);
    score.bottleneck = std::min(score.bottleneck, link.bandwidth);
    score.latency += link.rtt;
    score.guessed += matrix.at(from, to).bandwidth == 0 ? 1 : 0;
  }
  return score;
}

bool should_adopt(const RingScore& current, const RingScore& proposed, std::uint32_t percent) {
  const auto step = current.bottleneck / 100 * percent;
  if (proposed.bottleneck > current.bottleneck + step) return true;
  // Half a step may be lost for latency: it takes a whole one to come back.
  if (proposed.bottleneck < current.bottleneck - std::min(current.bottleneck, step / 2)) return false;
  const auto saved = current.latency - proposed.latency;
  return saved >= latency_worth_mentioning && saved > current.latency / 100 * percent;
}

GroupPaths summarise_paths(const LinkMatrix& matrix, std::uint32_t group, std::span<const PeerId> ring,
                           std::span<const std::uint32_t> hosts) {
  std::vector<std::pair<PeerId, std::size_t>> places;  // ascending by peer
  for (std::size_t i = 0; i < ring.size(); ++i) places.emplace_back(ring[i], i);
  std::ranges::sort(places);
  Slowest around, mesh, local;
  for (std::size_t i = 0; i < ring.size(); ++i)
    for (const auto& entry : matrix.row(ring[i])) {
      const auto it = std::ranges::lower_bound(places, std::pair(entry.to, std::size_t{0}));
      if (it == places.end() || it->first != entry.to) continue;
      mesh.add(entry.link);
      if (it->second == (i + 1) % ring.size()) around.add(entry.link);
      if (hosts.size() == ring.size() && hosts[i] == hosts[it->second]) local.add(entry.link);
    }
  GroupPaths paths;
  paths.group = group;
  paths.ring_bandwidth = around.bandwidth, paths.ring_rtt_us = microseconds(around.rtt);
  paths.mesh_bandwidth = mesh.bandwidth, paths.mesh_rtt_us = microseconds(mesh.rtt);
  paths.local_bandwidth = local.bandwidth, paths.local_rtt_us = microseconds(local.rtt);
  if (hosts.size() == ring.size()) count_hosts(paths, hosts);
  return paths;
}

}  // namespace pccl
