// Operations at the master: votes, verdicts, who is missing, and calls that can never meet.
#include <algorithm>

#include "protocol/election.hpp"
#include "protocol/master.hpp"

namespace pccl {

// Every operation that is heard of costs memory: a peer brings up no more than it may have in flight.
// Nothing: it was evicted for that, and whatever belonged to it is gone.
Master::OpenOperation* Master::open(const OpKey& key, PeerId by, Instant now) {
  if (const auto it = operations_.find(key); it != operations_.end()) return &it->second;
  const auto own = operations_.size() < limits::operations_open_max
                       ? 0
                       : std::count_if(
                             operations_.begin(), operations_.end(),
                             [&](const auto& entry) { return entry.second.opened_by == by; });
  if (std::size_t(own) >= limits::operations_open_max) {
    evict(by, "it has too many operations in flight", now);
    return nullptr;
  }
  auto& operation = operations_[key];
  operation.opened_by = by;
  operation.voters = index_.concerned(key).size();
  return &operation;
}

std::size_t Master::offers_of(PeerId peer) const {
  return std::size_t(std::count_if(operations_.begin(), operations_.end(), [&](const auto& entry) {
    const auto offers = entry.second.offers.find(index_.find(peer)->group);
    return offers != entry.second.offers.end() && offers->second.contains(peer);
  }));
}

void Master::on(ConnectionId, PeerId peer, const Done& m, Instant now) {
  auto& state = peers_.at(peer);
  state.verdicts_seen = std::max(state.verdicts_seen, m.verdicts_seen);
  if (phase_ != Phase::serving || !member(peer)) return;
  if (m.view != view_.id && rules_.drop_older_views) return;
  if (has_verdict(m.key)) return;
  if (!index_.concerns(m.key, peer)) return evict(peer, "it voted on another group's operation", now);
  auto* opened = open(m.key, peer, now);
  if (opened == nullptr) return;
  auto& operation = *opened;
  if (operation.first_heard == never) operation.first_heard = now;
  operation.done.vote(peer);
  if (operation.absent) operation.absent->erase(peer);
  if (!all_done(m.key, operation)) return;
  note_duration(now - operation.first_heard);
  publish({m.key, view_.id, ErrorCode::none, waiting(), view_due_, {}, {}});
}

bool Master::all_done(const OpKey& key, const OpenOperation& operation) const {
  if (rules_.all_members_done) return operation.done.count() == operation.voters;
  auto living = index_.concerned(key).all();
  std::erase_if(living, [&](PeerId peer) { return peers_.at(peer).connection == no_connection; });
  return operation.done.complete(living);
}

void Master::fail(const OpKey& key, ErrorCode code, const std::string& text, Instant now) {
  failures_.note(RecentFailure::Kind::failed, now, describe(key) + ": " + text);
  publish({key, view_.id, code, 0, false, {}, text});
}

void Master::publish(Verdict verdict) {
  operations_.erase(verdict.key);
  ++(verdict.code == ErrorCode::none ? tally_.commits : tally_.failures);
  recorded_.insert(verdict.key);
  records_.push_back({next_index_++, std::move(verdict)});
  const auto& record = records_.back();
  const auto minimum = minimum_seen();
  for (const auto peer : index_.concerned(record.verdict.key)) {
    auto& state = peers_.at(peer);
    if (record.verdict.code == ErrorCode::none) state.complaints = 0;
    if (state.waiting) {
      state.waiting.reset();
      note_blocked(peer);
    }
    send_verdict(peer, state.connection, record, minimum);
  }
  forget(minimum);
}

void Master::send_verdict(PeerId peer, ConnectionId c, const Record& record, std::uint64_t minimum) {
  if (c == no_connection) return;  // it is repeated when the peer registers again
  ToPeer message = Failed{record.index, record.verdict};
  if (record.verdict.code == ErrorCode::none) {
    auto verdict = record.verdict;
    if (!rules_.waiting_is_recorded) verdict.waiting = waiting();
    message = Commit{record.index, minimum, std::move(verdict)};
  }
  // Rule [4] off: what half of the peers hear is overtaken by the next view.
  const bool late = !rules_.commits_precede_view && peer % 2 == 0;
  auto& queue = late ? held_back_ : effects_;
  queue.push_back(master_effect::Send{c, std::move(message)});
}

// Over all groups: a run-scope verdict must outlive the slowest of them. Heartbeats keep idle peers from
// holding it down.
std::uint64_t Master::minimum_seen() const {
  std::uint64_t minimum = next_index_;
  for (const auto& m : view_.members) minimum = std::min(minimum, peers_.at(m.peer).verdicts_seen);
  return minimum;
}

// A verdict that every peer has seen will not be asked for again.
void Master::forget(std::uint64_t minimum) {
  while (!records_.empty() && (records_.front().index <= minimum || records_.size() > limits::records_max)) {
    recorded_.erase(records_.front().verdict.key);
    records_.pop_front();
  }
}

void Master::on(ConnectionId, PeerId peer, const Abandon& m, Instant now) {
  if (phase_ != Phase::serving || !member(peer) || has_verdict(m.key)) return;  // the verdict is on its way
  if (!index_.concerns(m.key, peer)) return evict(peer, "it abandoned another group's operation", now);
  if (m.code == ErrorCode::none) return evict(peer, "it abandoned an operation without a reason", now);
  fail(m.key, m.code, m.code == ErrorCode::timeout ? m.text + who_is_missing(m.key) : m.text, now);
}

std::string Master::who_is_missing(const OpKey& key) const {
  const auto it = operations_.find(key);
  if (it == operations_.end() || !it->second.absent || it->second.absent->empty()) return {};
  std::string who;
  std::size_t named = 0;
  for (const auto peer : *it->second.absent) {
    if (named++ == limits::peers_named_max) return who + " and others";
    who += (who.empty() ? "; missing: peer " : ", peer ") + std::to_string(peer);
  }
  return who;
}

void Master::on(ConnectionId, PeerId peer, const StateOffer& m, Instant now) {
  if (phase_ != Phase::serving || !member(peer) || m.view != view_.id || has_verdict(m.key)) return;
  if (!index_.concerns(m.key, peer) || index_.find(peer)->group != m.group)
    return evict(peer, "it offers another group's state", now);
  auto* opened = open(m.key, peer, now);
  if (opened == nullptr) return;
  auto& operation = *opened;
  if (!same_call(m.key, operation, peer, Call::sync_state, now)) return;
  auto& offers = operation.offers[m.group];
  if (!offers.contains(peer) && offers_of(peer) >= limits::offers_open_max)
    return evict(peer, "it offers too many shared states at once", now);
  if (operation.first_heard == never) operation.first_heard = now;
  offers[peer] = m;
  const auto& group = index_.group(m.group);
  if (offers.size() < group.size()) return;
  if (auto outsiders = outsiders_of(offers); !outsiders.peers.empty()) {
    std::set<std::string> islands;
    for (const auto outsider : outsiders.peers) islands.insert(index_.find(outsider)->island);
    return lose(islands, outsiders.why, RecentFailure::Kind::evicted, now, ErrorCode::mismatch);
  }
  elect_state(m.key, operation, m.group, peer, now);
}

// A run-wide one waits for the offers of all groups: the winner is one island in all of them.
void Master::elect_state(const OpKey& key, OpenOperation& operation, std::uint32_t group, PeerId peer,
                         Instant now) {
  OffersByGroup offers;
  if (key.scope == Scope::run) {
    for (const auto& [each, members] : index_.groups())
      if (operation.offers[each].size() < members.size()) return;
    offers = operation.offers;
  } else {
    offers[group] = operation.offers[group];
  }
  auto elected = elect_islands(offers, [&](PeerId each) { return index_.find(each)->island; });
  if (!elected) return fail(key, elected.error().code, elected.error().text, now);
  for (const auto& [each, election] : *elected) {
    const StatePlan plan{view_.id, key, election.revision, election.entries};
    if (operation.elected.insert(each).second)
      for (const auto other : index_.group(each)) send(other, plan);
    else if (each == group)
      send(peer, plan);  // it came back on a new connection
  }
  if (operation.voters == 1) operations_.erase(key);  // who is alone finishes without a word
}

// ---- waiting ----

void Master::on(ConnectionId, PeerId peer, const Waiting& m, Instant now) {
  if (phase_ != Phase::serving || !member(peer) || m.view != view_.id) return;
  auto& state = peers_.at(peer);
  for (const auto& call : m.calls)
    if (!index_.concerns(call.key, peer)) return evict(peer, "it waits in another group's operation", now);
  state.waiting = m;
  std::erase_if(state.waiting->calls, [&](const WaitingFor& call) { return has_verdict(call.key); });
  note_blocked(peer);
  answer_waiting(peer, *state.waiting, now);
  if (member(peer)) find_deadlock(now);
}

bool Master::is_posted(PeerId peer, const OpKey& key) const {
  const auto& waiting = peers_.at(peer).waiting;
  return waiting && std::any_of(waiting->calls.begin(), waiting->calls.end(),
                                [&](const WaitingFor& w) { return w.key == key; });
}

// After its `waiting` or its `boundary` has changed.
void Master::note_blocked(PeerId peer) {
  const auto& state = peers_.at(peer);
  const auto put = [&](std::set<PeerId>& all, bool in) {
    in ? void(all.insert(peer)) : void(all.erase(peer));
  };
  put(at_boundary_, state.boundary.has_value());
  put(blocked_, state.boundary || (state.waiting && state.waiting->stuck && !state.waiting->calls.empty()));
}

// Data tells most differences apart; what moves no data to this peer would wait for ever.
bool Master::same_call(const OpKey& key, OpenOperation& operation, PeerId peer, Call call, Instant now) {
  if (!operation.called) operation.called = {peer, call};
  const auto [first, other] = *operation.called;
  if (other == call) return true;
  fail(key, ErrorCode::mismatch,
       "peer " + std::to_string(first) + " calls " + name(other) + ", peer " + std::to_string(peer) +
           " calls " + name(call) + " as " + describe(key),
       now);
  return false;
}

void Master::answer_waiting(PeerId peer, const Waiting& m, Instant now) {
  for (const auto& call : m.calls) {
    auto* opened = open(call.key, peer, now);
    if (opened == nullptr) return;  // `m` went with the peer
    auto& operation = *opened;
    if (!same_call(call.key, operation, peer, call.call, now)) return;  // and with the verdict
    if (!operation.absent) {
      const auto whom = index_.concerned(call.key);
      operation.absent.emplace(whom.begin(), whom.end());
      std::erase_if(*operation.absent, [&](PeerId other) { return operation.done.has(other); });
    }
    operation.absent->erase(peer);
    operation.asked_since = std::min(operation.asked_since, now);
    const auto before = std::exchange(operation.moved[peer], call.moved);
    if (operation.absent->empty())
      operation.all_posted_at = call.moved > before ? now : std::min(operation.all_posted_at, now);
    operation.askers.insert(peer);
    operation.answer_at = std::min(operation.answer_at, now + timing_.waiting_answer);
  }
  if (!m.at_boundary) return;
  Missing missing{{}, Call::update_topology, index_.absent(at_boundary_, limits::peers_named_max)};
  if (!missing.peers.empty()) send(peer, std::move(missing));
}

// Every peer waits, no thread of any can start something else, and nothing that they wait for can complete.
void Master::find_deadlock(Instant now) {
  if (blocked_.size() < index_.all().size()) return;
  for (const auto& [key, operation] : operations_)
    if (operation.absent && operation.absent->empty()) return;  // all have come to it: it takes its time
  std::set<OpKey> open;
  std::string picture;
  for (const auto peer : index_.all()) {
    const auto& state = peers_.at(peer);
    picture += (picture.empty() ? "peer " : "; peer ") + std::to_string(peer) + " waits in ";
    std::string calls = state.boundary ? "update_topology" : "";
    for (std::size_t i = 0; !state.boundary && i < state.waiting->calls.size(); ++i) {
      const auto& call = state.waiting->calls[i];
      open.insert(call.key);
      calls +=
          (calls.empty() ? "" : " and ") + std::string(name(call.call)) + " (" + describe(call.key) + ")";
    }
    picture += calls;
  }
  const auto can_meet = [&](const OpKey& key) {
    const auto whom = index_.concerned(key);
    return std::all_of(whom.begin(), whom.end(), [&](PeerId p) { return is_posted(p, key); });
  };
  if (open.empty() || std::any_of(open.begin(), open.end(), can_meet)) return;
  const auto text =
      "these calls can never meet: " + picture + "; all peers must make the same calls in the same order";
  for (const auto& key : open) fail(key, ErrorCode::order, text, now);
  for (const auto peer : std::set(at_boundary_)) fail_boundary(peer, ErrorCode::order, text);
}

// ---- deadlines ----

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
  return std::max(timing_.deadline_floor,
                  median + Duration(timing_.deadline_k * double(sorted[sorted.size() / 2])));
}

// All members have posted the operation, nothing moves, and yet it does not end: whoever is not done
// overslept it.
void Master::judge_deadlines(Instant now) {
  for (const auto& [key, operation] : operations_) {
    if (operation.all_posted_at == never || now - operation.all_posted_at <= adaptive_deadline()) continue;
    const auto late = operation.done.missing(index_.concerned(key).all());
    const auto text = "it did not finish " + describe(key) + " within " +
                      std::to_string(adaptive_deadline() / millisecond) + " ms after all had started it";
    if (operation.done.empty() || late.empty()) {
      const auto copy = key;  // nobody is ahead of anybody: try again rather than blame one
      return begin_anew(describe(copy) + " made no progress", now);
    }
    return evict(late.back(), text, now);
  }
}

}  // namespace pccl
