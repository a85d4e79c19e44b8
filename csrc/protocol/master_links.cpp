// Links at the master: what peers report of them, the ring order and the hints that views carry, and the
// measurement that all peers call for at a boundary.
#include <algorithm>

#include "protocol/master.hpp"
#include "protocol/probe_rounds.hpp"

namespace pccl {

namespace {
// A measurement of many peers stays within some seconds; links that it does not reach count as the median.
constexpr std::uint32_t probe_rounds_max = 48;
// Beyond the probe itself: the answers' way, and a link that has to be opened first.
constexpr Duration probe_patience = 5 * second;
// Beyond this, a search costs more than the order gains.
constexpr std::size_t ordered_peers_max = 512;
}  // namespace

const std::vector<PeerId>& Master::ring_of(std::uint32_t group) const {
  const auto it = rings_.find(group);
  return it == rings_.end() ? index_.group(group) : it->second;
}

std::vector<GroupRing> Master::group_rings() const {
  std::vector<GroupRing> all;
  for (const auto& [group, peers] : index_.groups()) {
    GroupRing ring{group, ring_of(group), {}};
    for (const auto peer : ring.ring) ring.hosts.push_back(index_.find(peer)->host);
    all.push_back(std::move(ring));
  }
  return all;
}

// After the members have changed: who stayed keeps its place, who came is behind them, next to the ends to
// which it has proved its links.
void Master::keep_order() {
  rings_.clear();
  if (view_.order.empty()) return;
  const std::set<PeerId> placed(view_.order.begin(), view_.order.end());
  for (const auto peer : view_.order)
    if (const auto* m = index_.find(peer); m != nullptr) rings_[m->group].push_back(peer);
  for (const auto peer : index_.all())
    if (!placed.contains(peer)) rings_[index_.find(peer)->group].push_back(peer);
  write_order();
}

// An order of admission need not be told.
void Master::write_order() {
  std::erase_if(rings_, [&](const auto& entry) { return entry.second == index_.group(entry.first); });
  view_.order.clear();
  if (rings_.empty()) return;
  for (const auto& [group, peers] : index_.groups()) {
    const auto& ring = ring_of(group);
    view_.order.insert(view_.order.end(), ring.begin(), ring.end());
  }
}

void Master::tell_hints(Instant now) {
  view_.hints.mesh = mesh();
  view_.hints.deterministic =
      !view_.members.empty() && peers_.at(view_.members.front().peer).join.deterministic;
  view_.hints.paths.clear();
  if (!view_.hints.deterministic) view_.hints.paths = wiring_.paths(group_rings());
  view_due_ = false;
  look_at_ = never;
  hints_told_ = now;
}

bool Master::measures() const { return !view_.members.empty() && !view_.hints.deterministic; }

void Master::on(ConnectionId, PeerId peer, const LinkReport& m, Instant now) {
  if (!member(peer) || !measures()) return;
  bool news = false;
  for (const auto& link : m.links) {
    if (!member(link.to)) continue;
    wiring_.learn(peer, link, now);
    news = true;
  }
  if (!news) return;
  // The first speeds are worth a view as soon as they are known.
  const bool known =
      std::ranges::any_of(view_.hints.paths, [](const auto& p) { return p.mesh_bandwidth != 0; });
  const auto held = known ? hints_told_ + timing_.hints_hold : now;
  look_at_ = std::min(look_at_, std::max(now + timing_.links_settle, held));
}

// Would the next view be another one, if nobody came or went? Then the next boundary brings it.
void Master::look_at_links(Instant now) {
  if (now < look_at_ || phase_ != Phase::serving) return;
  look_at_ = never;
  if (!measures()) return;
  const auto groups = group_rings();
  view_due_ = differ_materially(view_.hints.paths, wiring_.paths(groups));
  for (const auto& group : groups)
    if (!view_due_ && group.ring.size() <= ordered_peers_max)
      view_due_ = wiring_.propose(group, unreachable_, view_.hints.mesh).report.adopted;
}

// At a boundary, before its view: the best orders that are worth it. Newcomers are not among the members yet.
std::vector<RingReport> Master::adopt_orders() {
  std::vector<RingReport> reports;
  if (!measures()) return reports;
  for (const auto& group : group_rings()) {
    if (group.ring.size() > ordered_peers_max) continue;
    auto [ring, report] = wiring_.propose(group, unreachable_, view_.hints.mesh);
    if (report.adopted) rings_[group.group] = std::move(ring);
    reports.push_back(report);
  }
  write_order();
  return reports;
}

// ---- measurements that all call for ----

// All are at the boundary. True: links are measured first.
bool Master::probe_first(Instant now) {
  if (probing_) return true;
  std::uint32_t longest = 0;
  PeerId asks = no_peer, does_not = no_peer;
  for (const auto peer : index_.all()) {
    const auto wish = peers_.at(peer).boundary->probe_ms;
    longest = std::max(longest, wish);
    (wish != 0 ? asks : does_not) = peer;
  }
  if (asks == no_peer || !measures()) return false;
  if (does_not != no_peer) {
    const auto text = "peer " + std::to_string(asks) + " calls optimize_topology, peer " +
                      std::to_string(does_not) + " calls update_topology; all peers must make the same call";
    for (const auto peer : std::set(at_boundary_)) fail_boundary(peer, ErrorCode::order, text);
    return true;
  }
  probing_ = Probing{};
  probing_->milliseconds = std::clamp(longest, limits::probe_ms_min, limits::probe_ms_max);
  for (const auto& group : group_rings()) {
    if (group.ring.size() > 1) probing_->groups.push_back(group);
    probing_->rounds = std::max(probing_->rounds, probe_rounds(std::uint32_t(group.ring.size())));
  }
  probing_->rounds = std::min(probing_->rounds, probe_rounds_max);
  next_probes(now);
  return true;
}

// Peers of one host are not measured: their links are not what a ring waits for.
void Master::next_probes(Instant now) {
  auto& probing = *probing_;
  while (probing.open.empty() && probing.next < probing.rounds) {
    ++probe_round_;
    for (const auto& group : probing.groups)
      for (const auto& [a, b] : probe_pairs(std::uint32_t(group.ring.size()), probing.next)) {
        if (group.hosts[a] != 0 && group.hosts[a] == group.hosts[b]) continue;
        probing.open.insert({group.ring[a], group.ring[b]});
        probing.open.insert({group.ring[b], group.ring[a]});
      }
    ++probing.next;
  }
  if (probing.open.empty()) return end_probes(now);
  probing.deadline = now + 3 * Duration{probing.milliseconds} * millisecond + probe_patience;
  for (const auto& [from, to] : probing.open)
    send(from, Probe{view_.id, probe_round_, to, probing.milliseconds});
}

void Master::on(ConnectionId, PeerId peer, const Probed& m, Instant now) {
  if (!probing_ || m.view != view_.id || m.round != probe_round_) return;
  if (probing_->open.erase({peer, m.link.to}) == 0) return;
  wiring_.learn(peer, m.link, now);
  if (probing_->open.empty()) next_probes(now);
}

// Whoever does not answer is not waited for: its links count as unknown. Heartbeats decide about its life.
void Master::check_probes(Instant now) {
  if (!probing_ || now < probing_->deadline) return;
  probing_->open.clear();
  next_probes(now);
}

void Master::end_probes(Instant now) {
  probing_.reset();
  pass_boundary(adopt_orders(), "the links were measured", now);
}

}  // namespace pccl
