// A session's links: which are needed, who dials, what is reported when one breaks, and the joiner's proof.
#include <algorithm>

#include "protocol/session.hpp"

namespace pccl {

void Session::dial(PeerId peer, Link& link, Instant now) {
  if (link.up || link.dialling) return;
  if (link.wanted_since == never) link.wanted_since = now;
  link.dialling = true;
  link.retry_at = never;
  emit(effect::Dial{peer, link.addresses});
}

// Who must be linked: ring neighbours, or where the view says so all of the group. The one that joined later
// dials, and whoever saw the old link break: the other end may believe that it still works. It may believe so
// without this end remembering: then this end dials a little later.
void Session::reconcile_links(Instant now) {
  const auto peers = ring();
  const auto at = std::find(peers.begin(), peers.end(), me_) - peers.begin();
  const auto count = std::ptrdiff_t(peers.size());
  std::set<PeerId> neighbours;
  if (at < count && count > 1 && view_.hints.mesh)
    neighbours = {peers.begin(), peers.end()};
  else if (at < count && count > 1)
    neighbours = {peers[std::size_t((at + 1) % count)], peers[std::size_t((at + count - 1) % count)]};
  neighbours.erase(me_);
  for (auto& [peer, link] : links_) {
    link.wanted = false;
    link.needed = link.needed && neighbours.contains(peer);
  }
  for (const auto peer : neighbours) {
    auto& link = links_[peer];
    link.addresses = view_.find(peer)->reachable_at;
    const bool before = std::exchange(link.needed, true);
    if (link.up) continue;
    if (!before) link.wanted_since = now;  // for how long nobody needed it is no evidence
    if (me_ > peer || link.lost)
      dial(peer, link, now);
    else if (!link.dialling)
      link.retry_at = std::min(link.retry_at, now + timing_.redial / 8);
  }
}

void Session::want_link(PeerId peer, Instant now) {
  const auto* member = view_.find(peer);
  if (member == nullptr || peer == me_) return;
  auto& link = links_[peer];
  link.addresses = member->reachable_at;
  const bool before = link.needed || std::exchange(link.wanted, true);
  if (link.up) return;
  if (!before) link.wanted_since = now;
  dial(peer, link, now);
}

// No attempt at a shared state or in blocks runs any more: who is no neighbour is not dialled again.
void Session::release_links() {
  const bool fetching = std::any_of(operations_.begin(), operations_.end(), [](const auto& entry) {
    const auto call = entry.second.descriptor.call;
    return (call == Call::sync_state || goes_straight(call)) && entry.second.attempt_live;
  });
  if (fetching) return;
  for (auto& [peer, link] : links_) link.wanted = false;
}

void Session::on_link_up(PeerId peer, Instant now) {
  if (stage_ == Stage::gone) return;
  auto& link = links_[peer];
  // A link that replaces one which seemed to work: frames may have died with the old one.
  if (link.up && rules_.lost_link_ends_view)
    report_lost(peer, link, false, false, "the other end opened it anew");
  link.up = true;
  link.dialling = link.lost = link.refused = false;
  link.wanted_since = link.retry_at = never;
  check_proof(now);
  if (probe_ && probe_->peer == peer) start_probe();
}

void Session::on_link_down(PeerId peer, bool refused, const std::string& why, Instant now) {
  const auto it = links_.find(peer);
  if (stage_ == Stage::gone || it == links_.end() || !it->second.up) return;
  auto& link = it->second;
  link.up = false;
  link.lost = true;
  link.wanted_since = now;
  // Mostly a view comes first.
  link.retry_at = now + (stage_ == Stage::door ? timing_.redial_every : timing_.redial / 8);
  report_lost(peer, link, refused, false, why);
  if (stage_ == Stage::member && view_.find(peer) == nullptr)
    links_.erase(it);  // a joiner that went away again
}

void Session::on_dial_failed(PeerId peer, bool refused, const std::string& why, Instant now) {
  const auto it = links_.find(peer);
  if (stage_ == Stage::gone || it == links_.end() || it->second.up) return;
  auto& link = it->second;
  link.dialling = false;
  link.why = why;
  link.refused = refused;
  link.retry_at = now + timing_.redial_every;
  if (refused) report_lost(peer, link, true, false, why);
}

void Session::report_lost(PeerId peer, Link&, bool refused, bool gave_up, const std::string& why) {
  if (stage_ != Stage::member || view_.find(peer) == nullptr) return;
  const bool all_held = std::all_of(operations_.begin(), operations_.end(), [](const auto& entry) {
    return entry.second.state == OperationState::held;
  });
  if (!rules_.lost_link_ends_view && !operations_.empty() && all_held) return;
  // A later report adds something only when it is the stronger evidence.
  if (!reported_.insert({peer, gave_up || refused}).second) return;
  reports_.emplace_back(LinkLost{view_.id, peer, refused, gave_up, why});
  to_master(reports_.back());
}

void Session::check_links(Instant now) {
  for (auto& [peer, link] : links_) {
    if (link.up || !(link.needed || link.wanted)) continue;
    if (!link.dialling && now >= link.retry_at) dial(peer, link, now);
    if (stage_ == Stage::door || link.wanted_since == never || now - link.wanted_since < timing_.redial)
      continue;
    const auto seconds = std::to_string((now - link.wanted_since) / millisecond) + " ms";
    report_lost(peer, link, link.refused, true,
                "no link for " + seconds + (link.why.empty() ? "" : ": " + link.why));
    link.wanted_since = now;
    if (!link.dialling) link.retry_at = now;  // whoever should have dialled did not: try from here as well
  }
}

void Session::on(const Prove& m, Instant now) {
  if (stage_ != Stage::door) return;
  proof_ = {m, now + timing_.prove, false};
  for (auto& [peer, link] : links_) link.wanted = false;
  // Those of older rounds.
  std::erase_if(links_, [](const auto& entry) { return !entry.second.up && !entry.second.dialling; });
  for (const auto& target : m.targets) {
    auto& link = links_[target.peer];
    link.addresses = target.reachable_at;
    link.wanted = true;
    if (!link.up) dial(target.peer, link, now);
  }
  check_proof(now);
}

void Session::check_proof(Instant now) {
  if (proof_.answered || stage_ != Stage::door) return;
  Reachable answer{proof_.prove.round, {}, {}};
  for (const auto& target : proof_.prove.targets) {
    const auto& link = links_[target.peer];
    if (link.up) continue;
    answer.failed.push_back(target.peer);
    answer.why = "peer " + std::to_string(target.peer) + " at " +
                 (target.reachable_at.empty() ? "no address"
                                              : target.reachable_at.front().host + ":" +
                                                    std::to_string(target.reachable_at.front().port)) +
                 (link.why.empty() ? " did not answer" : ": " + link.why);
  }
  if (!answer.failed.empty() && now < proof_.deadline) return;
  proof_.answered = true;
  for (const auto& [peer, link] : std::exchange(measured_, {}))
    if (answer.links.size() < limits::peers_named_max) answer.links.push_back(link);
  to_master(std::move(answer));
}

}  // namespace pccl
