// Views: shrink on evidence, same members after a lost link, grow at a boundary.
#include <algorithm>

#include "protocol/master.hpp"

namespace pccl {

void Master::new_view(std::vector<Member> members, const std::string& why, Instant now) {
  view_.id = {incarnation_, view_.id.number + 1};
  ++tally_.views;
  view_.members = std::move(members);
  number_hosts();
  index_.rebuild(view_);
  view_.waiting = waiting();
  keep_order();
  tell_hints(now);
  operations_.clear();  // votes belong to a view
  suspicions_.clear();
  judge_at_ = never;
  probing_.reset();
  for (auto& [peer, state] : peers_) {
    state.waiting.reset();
    state.boundary.reset();
  }
  at_boundary_.clear();
  blocked_.clear();
  emit(master_effect::Persist{incarnation_, view_});
  for (const auto& m : view_.members) send(m.peer, ViewMessage{view_, why});
  view_.rings.clear();
  emit(master_effect::Notice{"view " + std::to_string(view_.id.number) + " of " +
                             std::to_string(view_.members.size()) + " peers: " + why});
  forget(minimum_seen());
}

// By what their peers said when they joined: the first host is 1.
void Master::number_hosts() {
  std::map<std::string_view, std::uint32_t> numbers;
  for (auto& m : view_.members) {
    const std::string_view id = peers_.at(m.peer).join.host_id;
    m.host = id.empty() ? 0 : numbers.try_emplace(id, std::uint32_t(numbers.size() + 1)).first->second;
  }
}

// Every peer can have a link to every other of its group, and groups are small enough for it.
bool Master::mesh() {
  std::erase_if(unreachable_, [&](const auto& pair) {
    return !peers_.contains(pair.first) || !peers_.contains(pair.second);
  });
  const bool broken = std::any_of(unreachable_.begin(), unreachable_.end(), [&](const auto& pair) {
    const auto *a = index_.find(pair.first), *b = index_.find(pair.second);
    return a != nullptr && b != nullptr && a->group == b->group;
  });
  return !broken && index_.largest_group() <= limits::mesh_max;
}

// In the ring of their group, where a link is needed whatever the plan.
bool Master::neighbours(PeerId a, PeerId b) const {
  const auto& group = ring_of(index_.find(a)->group);
  const auto place = [&](PeerId peer) { return std::find(group.begin(), group.end(), peer) - group.begin(); };
  const auto apart = std::abs(place(a) - place(b)), count = std::ptrdiff_t(group.size());
  return apart == 1 || apart == count - 1;
}

// One dead rank takes its whole island out, in every group.
void Master::remove(const std::set<std::string>& islands, const std::string& why, ErrorCode code,
                    Instant now) {
  std::vector<Member> left;
  std::vector<PeerId> gone;
  for (const auto& m : view_.members)
    if (islands.contains(m.island))
      gone.push_back(m.peer);
    else
      left.push_back(m);
  if (gone.empty()) return;
  for (const auto peer : gone) {
    const auto it = peers_.find(peer);
    departures_.note(peer, why);
    ++tally_.removed;
    if (it != peers_.end() && it->second.connection != no_connection)
      tell_gone(it->second.connection, peer, code);
    forget_peer(peer);
  }
  names_freed_ = true;
  new_view(std::move(left), why, now);
  // Proofs at the door may name peers that are gone.
  std::vector<std::string> at_door;
  for (const auto& [island, door] : door_)
    if (complete(door)) at_door.push_back(island);
  for (const auto& island : at_door) start_proof(island, now);
  form_first_view(now);
}

// Not of their own will.
void Master::lose(const std::set<std::string>& islands, const std::string& why, RecentFailure::Kind kind,
                  Instant now, ErrorCode code) {
  failures_.note(kind, now, why);
  remove(islands, why, code, now);
}

void Master::evict(PeerId peer, const std::string& why, Instant now) {
  const auto text = "peer " + std::to_string(peer) + " was evicted: " + why;
  if (const auto* m = index_.find(peer)) return lose({m->island}, text, RecentFailure::Kind::evicted, now);
  drop_from_door(peer, text);
}

void Master::same_members(const std::string& why, Instant now) { new_view(view_.members, why, now); }

// Whatever was in flight, though nobody is gone.
void Master::begin_anew(const std::string& why, Instant now) {
  failures_.note(RecentFailure::Kind::begun_anew, now, why);
  same_members(why, now);
}

void Master::on(ConnectionId, PeerId peer, const Leave&, Instant now) {
  if (const auto* m = index_.find(peer))
    return remove({m->island}, "peer " + std::to_string(peer) + " left", ErrorCode::evicted, now);
  drop_from_door(peer, "peer " + std::to_string(peer) + " of the island left");
}

bool Master::has_complained(PeerId peer) const {
  return std::any_of(suspicions_.begin(), suspicions_.end(),
                     [&](const auto& s) { return s.first.first == peer && s.second.broke; });
}

// Each complaint costs everybody a new attempt. A broken link is charged to both ends: who breaks links with
// many has the most.
bool Master::complains_too_often(PeerId peer, PeerId about, Instant now) {
  ++peers_.at(peer).complaints;
  if (about != no_peer) ++peers_.at(about).complaints;
  if (peers_.at(peer).complaints <= limits::complaints_max &&
      (about == no_peer || peers_.at(about).complaints <= limits::complaints_max))
    return false;
  PeerId worst = peer;
  for (const auto& m : view_.members)
    if (const auto it = peers_.find(m.peer); it != peers_.end())
      if (std::pair(it->second.complaints, m.peer) > std::pair(peers_.at(worst).complaints, worst))
        worst = m.peer;
  evict(worst,
        "its links or attempts broke " + std::to_string(peers_.at(worst).complaints) +
            " times, and nothing got done meanwhile",
        now);
  return true;
}

void Master::on(ConnectionId, PeerId peer, const Broken& m, Instant now) {
  if (!member(peer) || m.view != view_.id || complains_too_often(peer, no_peer, now)) return;
  for (auto& [key, operation] : operations_) operation.done.withdraw(peer);
  begin_anew(describe(m.key) + " broke at peer " + std::to_string(peer) + ": " + m.why, now);
}

void Master::on(ConnectionId, PeerId peer, const LinkLost& m, Instant now) {
  if (!member(peer) || m.view != view_.id || !member(m.peer)) return;  // stale news
  const bool breaks = !m.refused || m.gave_up;
  if (breaks && !has_complained(peer) && complains_too_often(peer, m.peer, now)) return;
  auto& suspicion = suspicions_[{peer, m.peer}];
  suspicion.gave_up |= m.gave_up;
  suspicion.why = m.why;
  if (breaks) {
    suspicion.broke = true;
    for (auto& [key, operation] : operations_) operation.done.withdraw(peer);
    judge_at_ = std::min(judge_at_, now + timing_.settle);
  }
  judge_links(now);
}

// Shrink at once where two witnesses agree; after a short wait for such news, the same members try again. A
// link that could not be opened again ends the mesh, or between neighbours in the ring costs the side with
// more broken links its place.
void Master::judge_links(Instant now) {
  if (phase_ != Phase::serving) return;
  std::set<std::string> dead;
  std::string why;
  for (const auto& [pair, suspicion] : suspicions_) {
    const auto it = peers_.find(pair.second);
    if (it == peers_.end() || it->second.lost_since == never) continue;
    if (dead.insert(index_.find(pair.second)->island).second)
      why += (why.empty() ? "" : "; ") + ("peer " + std::to_string(pair.second)) +
             " is gone (its connections broke: " + suspicion.why + ")";
  }
  if (!dead.empty()) return lose(dead, why, RecentFailure::Kind::gone, now);
  if (now < judge_at_ || suspicions_.empty()) return;
  judge_at_ = never;
  // A suspect whose control connection is down is probably dead too, but may come back: check_silence
  // decides.
  std::map<PeerId, int> broken;
  std::string reports;
  for (const auto& [pair, suspicion] : suspicions_) {
    if (!suspicion.broke) continue;
    if (suspicion.gave_up && !neighbours(pair.first, pair.second))
      unreachable_.insert(std::minmax(pair.first, pair.second));
    else if (suspicion.gave_up)
      ++broken[pair.first], ++broken[pair.second];
    reports += (reports.empty() ? "" : "; ") + ("the link between peers " + std::to_string(pair.first)) +
               " and " + std::to_string(pair.second) + " broke: " + suspicion.why;
  }
  if (broken.empty()) return begin_anew(reports, now);
  const auto worst = std::max_element(broken.begin(), broken.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second < b.second : a.first < b.first;
  });
  evict(worst->first, reports, now);
}

void Master::on(ConnectionId, PeerId peer, const EnterBoundary& m, Instant now) {
  auto& state = peers_.at(peer);
  state.verdicts_seen = std::max(state.verdicts_seen, m.verdicts_seen);
  if (!member(peer) || phase_ != Phase::serving) return;
  if (m.boundary <= view_.boundaries) return send(peer, Passed{view_.id, view_.boundaries});
  if (m.view != view_.id) return;  // it is sent again after the view that is on its way
  if (m.boundary != view_.boundaries + 1)
    return evict(peer, "it is at boundary " + std::to_string(m.boundary), now);
  if (m.withdraw) return fail_boundary(peer, ErrorCode::cancelled, "withdrawn");
  state.boundary = m;
  note_blocked(peer);
  find_deadlock(now);
  try_pass_boundary(now);
}

// It does not wait there any more. The next boundary's number says which one is meant.
void Master::fail_boundary(PeerId peer, ErrorCode code, const std::string& text) {
  peers_.at(peer).boundary.reset();
  note_blocked(peer);
  probing_.reset();  // those who stay measure again when all are here
  send(peer, Failed{0, {{Scope::run, 0, {view_.boundaries + 1, 0, 0}}, view_.id, code, 0, false, {}, text}});
}

void Master::try_pass_boundary(Instant now) {
  if (view_.members.empty() || at_boundary_.size() < index_.all().size()) return;
  const bool somebody_need_not_come = std::any_of(at_boundary_.begin(), at_boundary_.end(), [&](PeerId peer) {
    return peers_.at(peer).boundary->islands <= index_.islands();
  });
  if (waiting() == 0 && !somebody_need_not_come) return;
  if (probe_first(now)) return;
  look_at_links(now);
  if (view_due_) {
    adopt_orders();
    return pass_boundary({}, "the links have changed", now);
  }
  pass_boundary({}, {}, now);
}

// With a new view where somebody comes in or what it tells has changed (`why`).
void Master::pass_boundary(std::vector<RingReport> reports, const std::string& why, Instant now) {
  ++view_.boundaries;
  view_.rings = std::move(reports);
  if (waiting() > 0) {
    auto all = view_.members;
    std::vector<std::string> names;
    for (auto& joiner : door_members()) {
      if (names.empty() || names.back() != joiner.island) names.push_back(joiner.island);
      all.push_back(std::move(joiner));
    }
    const auto* what = names.size() == 1 ? "island " : "islands ";
    return new_view(std::move(all), what + some_of(names) + " came in", now);
  }
  if (!why.empty()) return same_members(why, now);
  for (const auto& m : view_.members) {
    peers_.at(m.peer).boundary.reset();
    note_blocked(m.peer);
    send(m.peer, Passed{view_.id, view_.boundaries});
  }
}

}  // namespace pccl
