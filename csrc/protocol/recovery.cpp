// A restarted master: listen, find the last view and the verdicts that some member may lack, then start a new
// view.
#include <algorithm>

#include "protocol/master.hpp"

namespace pccl {

void Master::on(ConnectionId c, PeerId, const Register& m, Instant now) {
  if (phase_ == Phase::serving) return register_again(c, m, now);
  hear(c, m, now);
}

namespace {
// What the last view of an honest peer may be. Incarnations and boundaries still have to be counted on from
// it.
bool plausible(const Register& m, Role role) {
  return m.join.role == role && m.peer != no_peer && m.view.consistent() &&
         m.view.id.incarnation != UINT32_MAX && (m.peer >> 32) != UINT32_MAX &&
         m.view.boundaries != UINT32_MAX &&
         std::all_of(m.view.members.begin(), m.view.members.end(), [&](const Member& member) {
           return member.role == role && (member.peer >> 32) <= m.view.id.incarnation;
         });
}
}  // namespace

// A member, or a peer at the door, on a new connection. It hears all verdicts that it may lack, then its
// view.
void Master::register_again(ConnectionId c, const Register& m, Instant now) {
  const auto it = peers_.find(m.peer);
  if (it == peers_.end() || m.run != run_) {
    if (m.run == run_ && plausible(m, role_) && seat_again(c, m, now)) return;
    if (m.run == run_) return tell_gone(c, m.peer, ErrorCode::evicted);
    send_to(c, Evicted{ErrorCode::evicted, "this master serves another run; call rejoin() to join it"});
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
  std::erase_if(suspicions_, [&](const auto& s) { return s.first.second == m.peer && !s.second.broke; });
  state.verdicts_seen = std::max(state.verdicts_seen, m.verdicts_seen);
  if (!member(m.peer)) {
    if (const auto door = door_.find(state.join.island); door != door_.end() && complete(door->second))
      start_proof(state.join.island, now);
    return;
  }
  const auto minimum = minimum_seen();
  for (const auto& record : records_)
    if (record.index > m.verdicts_seen && index_.concerns(record.verdict.key, m.peer))
      send_verdict(m.peer, c, record, minimum);
  if (m.view.id < view_.id) send(m.peer, ViewMessage{view_, ""});
  if (m.boundary_waiting != 0 && m.boundary_waiting <= view_.boundaries)
    send(m.peer, Passed{view_.id, view_.boundaries});
}

void Master::hear(ConnectionId c, const Register& m, Instant now) {
  const bool full = heard_.size() >= limits::members_max && !heard_.contains(m.peer);
  if (full || !plausible(m, role_)) {
    send_to(c, Evicted{ErrorCode::protocol, "no peer of a run can be what this registration says"});
    return emit(master_effect::Close{c});
  }
  if (run_ == 0) run_ = m.run;
  if (m.run != run_) {
    send_to(c, Evicted{ErrorCode::evicted, "this master serves another run; call rejoin() to join it"});
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
  if (const auto before = heard_.find(m.peer); before != heard_.end())
    heard_views_.erase({before->second.view.id, m.peer});
  heard_[m.peer] = m;
  heard_views_.insert({m.view.id, m.peer});
  if (phase_ == Phase::suspended) return suspend();
  expect_no_more(now);
}

namespace {
std::set<std::string> islands_of(const View& view) {
  std::set<std::string> islands;
  for (const auto& m : view.members) islands.insert(m.island);
  return islands;
}
}  // namespace

// Once the whole last view is here there is nobody to wait for. Without a store a newer view may be known to
// somebody who is still on the way.
void Master::expect_no_more(Instant now) {
  const auto& base = last_view();
  if (base.members.empty() || !all_here(base)) return;
  listen_until_ = std::min(listen_until_, stored_is_last(base) ? now : now + timing_.late_registration);
  try_recover(now);
}

// Every registration asks: so each looks at those alone whom the ones before had not found.
bool Master::all_here(const View& base) {
  const auto& members = base.members;
  while (awaited_ < members.size() && here(members[awaited_].peer)) ++awaited_;
  if (awaited_ < members.size()) return false;
  awaited_ = 0;  // of those who were here, some may have gone
  return std::all_of(members.begin(), members.end(), [&](const Member& m) { return here(m.peer); });
}

// It has registered and is still connected.
bool Master::here(PeerId peer) const {
  const auto it = peers_.find(peer);
  return it != peers_.end() && it->second.connection != no_connection && heard_.contains(peer);
}

// The newest that is in the store or that anybody was told.
const View& Master::last_view() const {
  static const View none;
  const auto& known = stored_ ? stored_->view : none;
  if (heard_views_.empty() || heard_views_.rbegin()->first <= known.id) return known;
  const auto first = heard_views_.lower_bound({heard_views_.rbegin()->first, no_peer});
  return heard_.at(first->second).view;
}

// A store that could not be written for a while may know less than those who were there.
bool Master::stored_is_last(const View& base) const { return stored_ && stored_->view.id == base.id; }

// Its islands of which every rank has registered and is still connected.
std::set<std::string> Master::islands_here(const View& base) const {
  auto here = islands_of(base);
  for (const auto& m : base.members) {
    const auto it = peers_.find(m.peer);
    if (!heard_.contains(m.peer) || it == peers_.end() || it->second.connection == no_connection)
      here.erase(m.island);
  }
  return here;
}

bool Master::quorum(const View& base, const std::set<std::string>& here) const {
  if (here.empty()) return false;
  if (stored_is_last(base) || !rules_.quorum) return true;
  const auto smallest = std::min_element(base.members.begin(), base.members.end(),
                                         [](const auto& a, const auto& b) { return a.peer < b.peer; });
  const auto all = islands_of(base).size();
  return 2 * here.size() > all || (2 * here.size() == all && here.contains(smallest->island));
}

void Master::try_recover(Instant now) {
  if (phase_ != Phase::listening || now < listen_until_) return;
  auto incarnation = stored_ ? stored_->incarnation : 0;
  for (const auto& [peer, r] : heard_)  // who waits at the door knows of it by its number alone
    incarnation = std::max({incarnation, r.view.id.incarnation, std::uint32_t(peer >> 32)});
  incarnation_ = incarnation + 1;
  const auto base = last_view();
  const auto here = islands_here(base);
  if (rules_.roles_doubt_together && unheard_of() && others_ != Doubt::none) return wait_for_others(now);
  if (base.members.empty() ? !heard_.empty() || !early_joins_.empty() : quorum(base, here))
    return recover(base, here, now);
  if (!stored_is_last(base) && !heard_.empty()) return suspend();
  // Whom the stored view does not name need not wait for those whom it names; and when even the most patient
  // of these have given up by now, the run is over and the next one may begin.
  if (now >= run_over_at_ || nobody_left(base)) return recover(base, here, now);
  knock_at_members();
  evict_outsiders(base);
  listen_until_ = now + timing_.grace;
}

Doubt Master::doubt() const {
  if (phase_ == Phase::suspended) return Doubt::heard_too_few;
  return phase_ == Phase::listening && !stored_ && !heard_.empty() ? Doubt::hears_some : Doubt::none;
}

void Master::on_others(Doubt others, Instant now) {
  if (std::exchange(others_, others) == others || others != Doubt::heard_too_few) return;
  if (rules_.roles_doubt_together && phase_ == Phase::listening && unheard_of()) wait_for_others(now);
}

// Nothing is known here of any member of this role.
bool Master::unheard_of() const { return !stored_ && heard_.empty(); }

namespace {
constexpr const char* what_to_do =
    "if the others are dead, start them again and call rejoin() here, which is a new run: load a checkpoint; "
    "if they live, they may go on at another master: rejoin() there; with --state-dir or etcd a master needs "
    "no majority";
}  // namespace

// Members of other roles came: so the run is older than this master. Where they are too few, it may go on at
// another one, with all peers of this role: nobody begins a second one for them here.
void Master::wait_for_others(Instant now) {
  listen_until_ = now + timing_.grace;
  if (others_ != Doubt::heard_too_few) return;
  const std::string text = std::string("no ") + name(role_) +
                           " of the run came to the restarted master, and of its other peers too few; " +
                           what_to_do;
  for (const auto& [c, join] : std::exchange(early_joins_, {})) refuse(c, ErrorCode::no_quorum, text);
}

// A process that died with the old master closed its port, too. Refusals are no more than a hint where the
// master's way to a peer is not the peers': so they shorten no grace, and one who registers outweighs its
// own.
void Master::knock_at_members() {
  if (!stored_) return;
  for (const auto& m : stored_->view.members)
    if (!refused_.contains(m.peer) && !heard_.contains(m.peer))
      emit(master_effect::Knock{m.peer, m.reachable_at});
}

// Its process is at the door as a newcomer: the master that let it in, and died, never told it so.
bool Master::asks_anew(const Member& m) const {
  return std::any_of(early_joins_.begin(), early_joins_.end(), [&](const auto& entry) {
    return !m.reachable_at.empty() && entry.second.reachable_at == m.reachable_at;
  });
}

bool Master::nobody_left(const View& base) const {
  return stored_is_last(base) && std::all_of(base.members.begin(), base.members.end(), [&](const Member& m) {
           const auto it = peers_.find(m.peer);
           const bool here = it != peers_.end() && it->second.connection != no_connection;
           return (refused_.contains(m.peer) || asks_anew(m)) && !here;
         });
}

// Too few of the last view are here, and the others may go on elsewhere: nobody is let in, everybody is told
// why.
void Master::suspend() {
  const auto& base = last_view();
  const auto here = islands_here(base).size(), all = islands_of(base).size();
  const auto text = "the restarted master heard only " + std::to_string(here) + " of " + std::to_string(all) +
                    " islands of the last view; " + what_to_do;
  if (phase_ != Phase::suspended) emit(master_effect::Notice{text});
  phase_ = Phase::suspended;
  listen_until_ = never;
  for (const auto& [c, peer] : std::exchange(connections_, {})) {  // of all that was heard: who is still here
    send_to(c, Suspended{std::uint32_t(here), std::uint32_t(all / 2 + 1), text});
    emit(master_effect::Close{c});
    forget_peer(peer);
  }
  for (const auto& [c, join] : std::exchange(early_joins_, {})) refuse(c, ErrorCode::no_quorum, text);
}

void Master::evict_outsiders(const View& base) {
  for (const auto& [peer, r] : heard_) {
    if (base.find(peer) != nullptr || !peers_.contains(peer) || r.view.id == ViewId{}) continue;
    departures_.note(peer, "it is not in the last view that the restarted master knows");
    if (const auto c = peers_.at(peer).connection; c != no_connection) tell_gone(c, peer, ErrorCode::evicted);
    forget_peer(peer);
  }
}

// In this order: view, verdicts, then always a new view with our own incarnation.
void Master::recover(const View& base, const std::set<std::string>& islands, Instant now) {
  phase_ = Phase::serving;
  listen_until_ = never;
  next_index_ = (std::uint64_t{incarnation_} << 32) + 1;
  if (run_ == 0) run_ = next_run_;
  view_ = base;
  view_.id = {incarnation_, 0};  // every incarnation counts its own views
  std::erase_if(view_.members, [&](const Member& m) { return !islands.contains(m.island); });
  index_.rebuild(view_);
  liveness_at_ = now;
  for (const auto& [peer, r] : heard_)
    view_.boundaries = std::max(view_.boundaries, member(peer) ? r.view.boundaries : 0);
  const auto at_door = take_from_door();
  evict_outsiders(view_);
  if (rules_.recover_commits_first) recover_verdicts(base);
  heard_.clear();
  heard_views_.clear();
  refused_.clear();
  stored_.reset();
  if (!view_.members.empty()) new_view(view_.members, "the master was restarted", now);
  for (const auto& [c, registered] : at_door)
    if (!seat_again(c, registered, now)) tell_gone(c, registered.peer, ErrorCode::evicted);
  for (const auto& [c, join] : std::exchange(early_joins_, {})) on(c, no_peer, join, now);
  form_first_view(now);
}

// Who waited there, and has never been told a view, with its connection.
std::vector<std::pair<ConnectionId, Register>> Master::take_from_door() {
  std::vector<std::pair<ConnectionId, Register>> found;
  for (const auto& [peer, r] : heard_) {
    const auto it = peers_.find(peer);
    if (member(peer) || r.view.id != ViewId{} || it == peers_.end()) continue;
    if (it->second.connection != no_connection) found.emplace_back(it->second.connection, r);
    forget_peer(peer);
  }
  for (const auto& [c, registered] : found) {
    heard_views_.erase({registered.view.id, registered.peer});
    heard_.erase(registered.peer);
  }
  return found;
}

void Master::recover_verdicts(const View& base) {
  std::map<OpKey, Verdict> known;
  std::map<OpKey, std::map<ViewId, Ballot>> held;
  for (const auto& [peer, r] : heard_) {
    if (!member(peer)) continue;
    for (const auto& verdict : r.verdicts) known.emplace(verdict.key, verdict);
    for (const auto& open : r.open)
      if (open.held) held[open.key][open.view].vote(peer);
  }
  MemberIndex before;
  before.rebuild(base);
  for (const auto& [key, by_view] : held) {
    const auto it = by_view.find(base.id);
    if (known.contains(key) || it == by_view.end()) continue;
    // Of the whole last view, not only of those who came back.
    const auto all = before.concerned(key);
    if (it->second.complete(all.all()))
      known[key] = {key, base.id, ErrorCode::none, waiting(), view_due_, {}, {}};
  }
  for (auto& [key, verdict] : known) publish(std::move(verdict));
}

}  // namespace pccl
