// Operations at the master: votes, verdicts, who is missing, and calls that can never meet.
#include <algorithm>

#include "protocol/election.hpp"
#include "protocol/master.hpp"

namespace pccl {

std::vector<PeerId> Master::concerned(const OpKey& key) const {
  if (key.scope == Scope::group) return view_.group_members(key.group);
  std::vector<PeerId> peers;
  for (const auto& m : view_.members)
    if (m.role == Role::trainer) peers.push_back(m.peer);
  return peers;
}

void Master::on(ConnectionId, PeerId peer, const Done& m, Instant now) {
  auto& state = peers_.at(peer);
  state.verdicts_seen = std::max(state.verdicts_seen, m.verdicts_seen);
  if (phase_ != Phase::serving || !member(peer)) return;
  if (m.view != view_.id && rules_.drop_older_views) return;
  if (has_verdict(m.key)) return;
  auto& operation = operations_[m.key];
  if (operation.first_heard == never) operation.first_heard = now;
  operation.done.vote(peer);
  try_commit(m.key, now);
}

void Master::try_commit(const OpKey& key, Instant now) {
  auto voters = concerned(key);
  if (!rules_.all_members_done)
    std::erase_if(voters, [&](PeerId peer) { return peers_.at(peer).connection == no_connection; });
  if (voters.empty() || !operations_.at(key).done.complete(voters)) return;
  note_duration(now - operations_.at(key).first_heard);
  commit(key, view_.id, waiting(), {}, now);
}

void Master::commit(const OpKey& key, ViewId view, std::uint32_t waiting, std::vector<PeerId> contributors, Instant) {
  publish({key, view, ErrorCode::none, waiting, std::move(contributors), {}}, concerned(key));
}

void Master::fail(const OpKey& key, ErrorCode code, const std::string& text, Instant) {
  publish({key, view_.id, code, 0, {}, text}, concerned(key));
}

void Master::publish(Verdict verdict, const std::vector<PeerId>& to) {
  operations_.erase(verdict.key);
  records_.push_back({next_index_++, std::move(verdict)});
  for (const auto peer : to) {
    auto& state = peers_.at(peer);
    if (state.waiting) state.waiting.reset();
    send_verdict(peer, records_.back());
  }
  forget();
}

void Master::send_verdict(PeerId peer, const Record& record) {
  const auto c = peers_.at(peer).connection;
  if (c == no_connection) return;  // it is repeated when the peer registers again
  ToPeer message = Failed{record.index, record.verdict};
  if (record.verdict.code == ErrorCode::none) {
    auto verdict = record.verdict;
    if (!rules_.waiting_is_recorded) verdict.waiting = waiting();
    message = Commit{record.index, minimum_seen(), std::move(verdict)};
  }
  // Rule [4] off: what half of the peers hear is overtaken by the next view.
  const bool late = !rules_.commits_precede_view && peer % 2 == 0;
  auto& queue = late ? held_back_ : effects_;
  queue.push_back(master_effect::Send{c, std::move(message)});
}

bool Master::has_verdict(const OpKey& key) const {
  return std::any_of(records_.rbegin(), records_.rend(), [&](const Record& r) { return r.verdict.key == key; });
}

// Over all groups: a run-scope verdict must outlive the slowest of them. Heartbeats keep idle peers from holding it down.
std::uint64_t Master::minimum_seen() const {
  std::uint64_t minimum = next_index_;
  for (const auto& m : view_.members) minimum = std::min(minimum, peers_.at(m.peer).verdicts_seen);
  return minimum;
}

// A verdict that every peer has seen will not be asked for again.
void Master::forget() {
  const auto minimum = minimum_seen();
  while (!records_.empty() && (records_.front().index <= minimum || records_.size() > limits::records_max)) records_.pop_front();
}

void Master::on(ConnectionId, PeerId peer, const Abandon& m, Instant now) {
  if (phase_ != Phase::serving || !member(peer) || has_verdict(m.key)) return;  // the verdict is on its way
  const auto whom = concerned(m.key);
  if (std::find(whom.begin(), whom.end(), peer) == whom.end()) return evict(peer, "it abandoned another group's operation", now);
  fail(m.key, m.code, m.text, now);
}

void Master::on(ConnectionId, PeerId peer, const StateOffer& m, Instant now) {
  if (phase_ != Phase::serving || !member(peer) || m.view != view_.id || has_verdict(m.key)) return;
  if (view_.find(peer)->group != m.group) return evict(peer, "it offers another group's state", now);
  auto& operation = operations_[m.key];
  if (operation.first_heard == never) operation.first_heard = now;
  operation.offers[peer] = m;
  const auto group = view_.group_members(m.group);
  std::map<PeerId, StateOffer> offers;
  for (const auto other : group) {
    const auto it = operation.offers.find(other);
    if (it == operation.offers.end()) return;
    offers.emplace(*it);
  }
  auto election = elect(offers);
  if (!election) return fail(m.key, election.error().code, election.error().text, now);
  const bool again = !operation.elected.insert(m.group).second;  // the peer came back on a new connection
  for (const auto other : again ? std::vector{peer} : group) send(other, StatePlan{view_.id, m.key, election->revision, election->entries});
}

// ---- waiting ---------------------------------------------------------------------------------------------------------

void Master::on(ConnectionId, PeerId peer, const Waiting& m, Instant now) {
  if (phase_ != Phase::serving || !member(peer) || m.view != view_.id) return;
  auto& state = peers_.at(peer);
  state.waiting = m;
  std::erase_if(state.waiting->calls, [&](const WaitingFor& call) { return has_verdict(call.key); });
  answer_waiting(peer, *state.waiting, now);
  find_deadlock(now);
}

namespace {
bool posted(const std::optional<Waiting>& waiting, const OpKey& key) {
  return waiting && std::any_of(waiting->calls.begin(), waiting->calls.end(), [&](const WaitingFor& w) { return w.key == key; });
}
}  // namespace

void Master::answer_waiting(PeerId peer, const Waiting& m, Instant now) {
  for (const auto& call : m.calls) {
    Missing missing{call.key, call.call, {}};
    const auto open = operations_.find(call.key);
    for (const auto other : concerned(call.key)) {
      const bool done = open != operations_.end() && open->second.done.has(other);
      if (done || posted(peers_.at(other).waiting, call.key)) continue;
      if (missing.peers.size() < limits::peers_named_max) missing.peers.push_back(other);
    }
    if (missing.peers.empty()) {
      auto& operation = operations_[call.key];
      if (operation.all_posted_at == never) operation.all_posted_at = now;
      continue;
    }
    send(peer, std::move(missing));
  }
  if (!m.at_boundary) return;
  Missing missing{{}, Call::update_topology, {}};
  for (const auto& other : view_.members)
    if (!peers_.at(other.peer).boundary && missing.peers.size() < limits::peers_named_max) missing.peers.push_back(other.peer);
  if (!missing.peers.empty()) send(peer, std::move(missing));
}

// Every peer waits, no thread of any can start something else, and nothing that they wait for can complete.
void Master::find_deadlock(Instant now) {
  std::set<OpKey> open;
  std::string picture;
  bool somebody_at_boundary = false, somebody_not = false;
  for (const auto& m : view_.members) {
    const auto& state = peers_.at(m.peer);
    const bool here = state.boundary.has_value();
    (here ? somebody_at_boundary : somebody_not) = true;
    if (!here && (!state.waiting || !state.waiting->stuck || state.waiting->calls.empty())) return;
    picture += (picture.empty() ? "peer " : "; peer ") + std::to_string(m.peer) + " waits in ";
    if (here) {
      picture += "update_topology";
      continue;
    }
    std::string calls;
    for (const auto& call : state.waiting->calls) {
      open.insert(call.key);
      calls += (calls.empty() ? "" : " and ") + std::string(name(call.call)) + " (" + describe(call.key) + ")";
    }
    picture += calls;
  }
  if (open.empty()) return;
  for (const auto& key : open) {
    const auto whom = concerned(key);
    const bool can_meet = std::all_of(whom.begin(), whom.end(), [&](PeerId p) { return posted(peers_.at(p).waiting, key); });
    if (can_meet) return;
  }
  const auto text = "these calls can never meet: " + picture + "; all peers must make the same calls in the same order";
  for (const auto& key : open) fail(key, ErrorCode::order, text, now);
  if (!somebody_at_boundary || !somebody_not) return;
  for (const auto& m : view_.members)
    if (peers_.at(m.peer).boundary) fail_boundary(m.peer, ErrorCode::order, text);
}

// ---- deadlines -------------------------------------------------------------------------------------------------------

void Master::note_duration(Duration took) {
  durations_.push_back(took);
  if (durations_.size() > 64) durations_.pop_front();
}

Duration Master::adaptive_deadline() const {
  if (durations_.size() < 8) return timing_.deadline_floor;
  auto sorted = std::vector<Duration>(durations_.begin(), durations_.end());
  std::sort(sorted.begin(), sorted.end());
  const auto median = sorted[sorted.size() / 2];
  for (auto& d : sorted) d = d > median ? d - median : median - d;
  std::sort(sorted.begin(), sorted.end());
  return std::max(timing_.deadline_floor, median + Duration(timing_.deadline_k * double(sorted[sorted.size() / 2])));
}

// All members have posted the operation and yet it does not end: whoever is not done overslept it.
void Master::judge_deadlines(Instant now) {
  for (const auto& [key, operation] : operations_) {
    if (operation.all_posted_at == never || now - operation.all_posted_at <= adaptive_deadline()) continue;
    const auto late = operation.done.missing(concerned(key));
    const auto text = "it did not finish " + describe(key) + " within " + std::to_string(adaptive_deadline() / millisecond) +
                      " ms after all had started it";
    if (operation.done.empty() || late.empty()) {
      const auto copy = key;  // nobody is ahead of anybody: try again rather than blame one
      return same_members(describe(copy) + " made no progress", now);
    }
    return evict(late.back(), text, now);
  }
}

}  // namespace pccl
