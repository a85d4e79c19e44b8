// A restarted master: listen, find the last view and the verdicts that some member may lack, then start a new view.
#include <algorithm>

#include "protocol/master.hpp"

namespace pccl {

void Master::on(ConnectionId c, PeerId, const Register& m, Instant now) {
  if (phase_ == Phase::serving) return register_again(c, m, now);
  hear(c, m, now);
}

// A member, or a peer at the door, on a new connection. It hears all verdicts that it may lack, then its view.
void Master::register_again(ConnectionId c, const Register& m, Instant now) {
  const auto it = peers_.find(m.peer);
  if (it == peers_.end() || m.run != run_) {
    send_to(c, Evicted{ErrorCode::evicted, "the run went on without this peer; join it again"});
    return emit(master_effect::Close{c});
  }
  auto& state = it->second;
  if (state.connection != no_connection) {
    emit(master_effect::Close{state.connection});
    connections_.erase(state.connection);
  }
  connections_[c] = m.peer;
  state.connection = c;
  state.lost_since = never;
  state.heard = now;
  state.verdicts_seen = std::max(state.verdicts_seen, m.verdicts_seen);
  if (!member(m.peer)) {
    if (const auto door = door_.find(state.join.island); door != door_.end() && complete(door->second)) start_proof(state.join.island);
    return;
  }
  for (const auto& record : records_) {
    if (record.index <= m.verdicts_seen) continue;
    const auto whom = concerned(record.verdict.key);
    if (std::find(whom.begin(), whom.end(), m.peer) != whom.end()) send_verdict(m.peer, record);
  }
  if (m.view.id < view_.id) send(m.peer, ViewMessage{view_, ""});
  if (m.boundary_waiting != 0 && m.boundary_waiting <= view_.boundaries) send(m.peer, Passed{view_.id, view_.boundaries});
}

void Master::hear(ConnectionId c, const Register& m, Instant now) {
  if (run_ == 0) run_ = m.run;
  if (m.run != run_) {
    send_to(c, Evicted{ErrorCode::evicted, "this master serves another run; join it anew"});
    return emit(master_effect::Close{c});
  }
  auto& state = peers_[m.peer];
  if (state.connection != no_connection) {
    emit(master_effect::Close{state.connection});
    connections_.erase(state.connection);
  }
  connections_[c] = m.peer;
  state.join = m.join;
  state.connection = c;
  state.heard = now;
  state.lost_since = never;
  heard_[m.peer] = m;
  if (phase_ == Phase::suspended) try_recover(now);
}

namespace {
std::set<std::string> islands_of(const View& view) {
  std::set<std::string> islands;
  for (const auto& m : view.members) islands.insert(m.island);
  return islands;
}
}  // namespace

void Master::try_recover(Instant now) {
  if (phase_ == Phase::listening && now < listen_until_) return;
  View base = stored_ ? stored_->view : View{};
  std::uint32_t heard_incarnation = stored_ ? stored_->incarnation : 0;
  for (const auto& [peer, r] : heard_) {
    if (!peers_.contains(peer) || peers_.at(peer).connection == no_connection) continue;
    if (!stored_ && r.view.id > base.id) base = r.view;
    heard_incarnation = std::max(heard_incarnation, r.view.id.incarnation);
  }
  incarnation_ = std::max(incarnation_, heard_incarnation + 1);
  if (base.members.empty()) {  // nobody was in a run yet
    if (heard_.empty() && phase_ == Phase::listening) listen_until_ = now + timing_.grace;
    if (heard_.empty() && early_joins_.empty()) return;
    return recover(base, {}, now);
  }
  auto here = islands_of(base);
  for (const auto& m : base.members) {
    const auto it = peers_.find(m.peer);
    if (!heard_.contains(m.peer) || it == peers_.end() || it->second.connection == no_connection) here.erase(m.island);
  }
  const auto all = islands_of(base).size();
  const auto smallest = std::min_element(base.members.begin(), base.members.end(), [](const auto& a, const auto& b) { return a.peer < b.peer; });
  const bool enough = stored_ ? !here.empty() : 2 * here.size() > all || (2 * here.size() == all && here.contains(smallest->island));
  if (enough || (!rules_.quorum && !here.empty())) return recover(base, here, now);
  if (stored_ || heard_.empty()) {
    listen_until_ = now + timing_.grace;
    return;
  }
  phase_ = Phase::suspended;
  listen_until_ = now + timing_.grace;
  const auto text = "the restarted master heard only " + std::to_string(here.size()) + " of " + std::to_string(all) +
                    " islands of the last view; start the others again within reach, or begin a new run from a checkpoint";
  for (const auto& [peer, r] : heard_) send(peer, Suspended{std::uint32_t(here.size()), std::uint32_t(all / 2 + 1), text});
  emit(master_effect::Notice{text});
}

// In this order: view, verdicts, then always a new view with our own incarnation.
void Master::recover(const View& base, const std::set<std::string>& islands, Instant now) {
  phase_ = Phase::serving;
  listen_until_ = never;
  next_index_ = (std::uint64_t{incarnation_} << 32) + 1;
  if (run_ == 0) run_ = 1;
  view_ = base;
  std::erase_if(view_.members, [&](const Member& m) { return !islands.contains(m.island); });
  std::vector<PeerId> outsiders;
  for (const auto& [peer, r] : heard_) {
    view_.boundaries = std::max(view_.boundaries, member(peer) ? r.view.boundaries : 0);
    if (!member(peer)) outsiders.push_back(peer);
  }
  for (const auto peer : outsiders) {
    if (peers_.contains(peer)) {
      send(peer, Evicted{ErrorCode::evicted, "the run went on without this peer; join it again"});
      if (const auto c = peers_.at(peer).connection; c != no_connection) emit(master_effect::Close{c});
    }
    forget_peer(peer);
  }
  if (rules_.recover_commits_first) recover_verdicts(base, now);
  heard_.clear();
  stored_.reset();
  if (!view_.members.empty()) new_view(view_.members, "the master was restarted", now);
  for (const auto& [c, join] : std::exchange(early_joins_, {})) on(c, no_peer, join, now);
  form_first_view(now);
}

void Master::recover_verdicts(const View& base, Instant now) {
  std::map<OpKey, Verdict> known;
  std::map<OpKey, std::map<ViewId, Ballot>> held;
  for (const auto& [peer, r] : heard_) {
    if (!member(peer)) continue;
    for (const auto& verdict : r.verdicts) known.emplace(verdict.key, verdict);
    for (const auto& open : r.open)
      if (open.held) held[open.key][open.view].vote(peer);
  }
  for (const auto& [key, by_view] : held) {
    const auto it = by_view.find(base.id);
    if (known.contains(key) || it == by_view.end()) continue;
    std::vector<PeerId> all;  // of the whole last view, not only of those who came back
    for (const auto& m : base.members)
      if (m.role == Role::trainer && (key.scope == Scope::run || key.group == m.group)) all.push_back(m.peer);
    if (it->second.complete(all)) known[key] = {key, base.id, ErrorCode::none, waiting(), {}, {}};
  }
  for (auto& [key, verdict] : known) publish(std::move(verdict), concerned(key));
  (void)now;
}

}  // namespace pccl
