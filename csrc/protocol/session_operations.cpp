// A session's operations: post, attempt by view, verdict.
#include <algorithm>

#include "protocol/session.hpp"

namespace pccl {

namespace {
std::vector<PeerId> gone_between(const View& before, const View& after) {
  std::vector<PeerId> gone;
  for (const auto& m : before.members)
    if (after.find(m.peer) == nullptr) gone.push_back(m.peer);
  return gone;
}

std::string in_words(const std::vector<PeerId>& peers) {
  std::string who;
  for (std::size_t i = 0; i < peers.size(); ++i) {
    if (i == limits::names_told_max) return who + " and others";
    who += (i == 0 ? "peer " : ", peer ") + std::to_string(peers[i]);
  }
  return who.empty() ? "a peer" : who;
}
}  // namespace

std::vector<Operation*> Session::in_posted_order() {
  std::vector<Operation*> all;
  for (auto& [key, operation] : operations_) all.push_back(&operation);
  std::sort(all.begin(), all.end(), [](auto* a, auto* b) { return a->posted_order < b->posted_order; });
  return all;
}

void Session::transition(Operation& operation, OperationState to) {
  if (operation.state == to) return;
  if (!legal(operation.state, to)) return;  // our own logic only; the simulator asserts on the outcome
  operation.held_when_abandoned = to == OperationState::abandoned && operation.state == OperationState::held;
  operation.state = to;
}

bool Session::decided(const OpKey& key) const {
  if (key.tag.boundary < view_.boundaries) return true;
  if (key.tag.boundary > view_.boundaries || operations_.contains(key)) return false;
  if (failed_early_.contains(key)) return true;
  const auto it = counters_.find(first_use(key));
  return it != counters_.end() && key.tag.count < it->second;
}

OpKey Session::first_use(OpKey key) {
  key.tag.boundary = key.tag.count = 0;
  return key;
}

Error Session::refused(const Posting& posting) const {
  if (stage_ == Stage::gone) return end_;
  if (stage_ != Stage::member) return Error{ErrorCode::usage, "this peer is not admitted yet"};
  if (boundary_.number != 0)
    return Error{ErrorCode::usage, "an operation while another thread is in update_topology"};
  if (operations_.size() >= limits::operations_open_max)
    return Error{ErrorCode::usage, "too many operations in flight: wait for some"};
  if (posting.scope == Scope::pair &&
      (posting.from == posting.to || (posting.from != me_ && posting.to != me_)))
    return Error{ErrorCode::usage, "a peer sends to another one, and receives from another one"};
  return {};
}

Result<OpKey> Session::post(Posting posting, Instant now) {
  if (auto why = refused(posting)) return why;
  OpKey key{posting.scope, posting.scope == Scope::group ? join_.group : 0, {0, posting.name, 0}};
  if (key.scope == Scope::pair) key.from = posting.from, key.to = posting.to;
  // Two threads of one peer may mean different things by one tag. Messages to one peer are in one order.
  for (const auto& [other, open] : operations_)
    if (posting.name != 0 && key.scope != Scope::pair && first_use(other) == key)
      return Error{ErrorCode::usage,
                   describe(other) + " is in flight already: wait for it, or use another tag"};
  const auto count = counters_[key]++;
  key.tag = {view_.boundaries, posting.name, count};
  auto& operation = operations_[key];
  operation.key = key;
  operation.peers = in_blocks(posting.descriptor.call) ? posting.descriptor.blocks : posting.peers;
  operation.descriptor = std::move(posting.descriptor);
  operation.posted_order = ++posted_;
  operation.posted_at = now;
  operation.deadline = posting.timeout == never ? never : now + posting.timeout;
  operation.notice_at = notice_at(operation, now);
  if (const auto failed = failed_early_.find(key); failed != failed_early_.end()) {
    const auto verdict = failed->second;
    failed_early_.erase(failed);
    finish(key, {{reason(verdict.code), verdict.text}, {}, 0, 0});
  } else {
    begin_attempt(operation, now);
  }
  return key;
}

void Session::begin_attempt(Operation& operation, Instant now) {
  const auto& d = operation.descriptor;
  if (auto who = missing_peer(operation); !who.empty())
    return ask_abandon(operation, ErrorCode::peer_lost,
                       "the other end of " + call_text(operation) + ", " + who + ", is not in the run", now);
  const auto* root = view_.find(d.root);
  if (auto why = other_shape(operation); !why.empty())
    return ask_abandon(operation, ErrorCode::peer_lost, why, now);
  if (has_root(d.call) && (root == nullptr || root->group != join_.group))
    return ask_abandon(operation, ErrorCode::peer_lost,
                       "the root of " + call_text(operation) + ", peer " + std::to_string(d.root) +
                           ", is not in the group; inputs are intact",
                       now);
  operation.view = view_.id;
  operation.offer.reset();
  operation.missing.clear();
  operation.hindrances.clear();
  ++operation.attempts;
  operation.moved = 0;
  operation.attempt_live = true;
  transition(operation, OperationState::running);
  emit(effect::StartAttempt{operation.key});
}

// Of a pair, who is not among those that the view names.
std::string Session::missing_peer(const Operation& operation) const {
  const auto& key = operation.key;
  if (key.scope != Scope::pair) return {};
  const auto other = key.from == me_ ? key.to : key.from;
  const auto* member = view_.find(other);
  return member != nullptr ? "" : "peer " + std::to_string(other);
}

void Session::note_departures(const View& before) {
  auto gone = gone_between(before, view_);
  std::erase_if(gone, [&](PeerId peer) { return before.find(peer)->group != join_.group; });
  if (!gone.empty()) departed_ = std::move(gone);
}

std::string Session::departed() const { return in_words(departed_); }

// What an operation for so many peers says to another number of them, whether it began before or after.
std::string Session::other_shape(const Operation& operation) const {
  const auto peers = view_.group_members(join_.group).size();
  if (operation.peers == 0 || operation.peers == peers) return {};
  const auto who = peers < operation.peers && !departed_.empty() ? departed() + " has left: " : std::string();
  return who + call_text(operation) + " is for " + std::to_string(operation.peers) +
         " peers, and there are " + std::to_string(peers) + " now; inputs are intact: call it again" +
         (in_blocks(operation.descriptor.call) ? " with tensors for these" : "");
}

void Session::drop_attempt(Operation& operation) {
  if (!operation.attempt_live) return;
  emit(effect::DropAttempt{operation.key});
  operation.attempt_live = operation.held_when_abandoned = false;
  if (const auto call = operation.descriptor.call; call == Call::sync_state || goes_straight(call))
    release_links();
  if (operation.state != OperationState::abandoned) transition(operation, OperationState::posted);
}

// Every operation that is not committed starts again in the new view, whether or not the master knew of it.
void Session::restart_operations(const View& before, Instant now) {
  const auto gone = gone_between(before, view_);
  for (auto* operation : in_posted_order()) {
    if (operation->state == OperationState::abandoned) {
      if (before.id.incarnation != view_.id.incarnation) to_master(operation->abandon);
    } else if (operation->state == OperationState::posted) {
      if (auto why = lost_by(*operation, gone); !why.empty())
        ask_abandon(*operation, ErrorCode::peer_lost, why, now);
      else
        begin_attempt(*operation, now);
    }
  }
}

// Why it is not begun again by itself.
std::string Session::lost_by(const Operation& operation, const std::vector<PeerId>& gone) const {
  const auto on_loss = operation.descriptor.on_loss;
  if (on_loss == OnLoss::remake && rules_.ask_to_remake)
    return (gone.empty() ? "a connection broke" : in_words(gone) + " left") + " during " +
           call_text(operation) + "; make the inputs again, and call it again";
  if (on_loss != OnLoss::raise || gone.empty() || !other_shape(operation).empty()) return {};
  return in_words(gone) + " left during " + call_text(operation) + "; inputs are intact: call it again";
}

void Session::note_moved(const OpKey& key) {
  if (const auto it = operations_.find(key); it != operations_.end()) ++it->second.moved;
}

void Session::attempt_complete(const OpKey& key, Instant now) {
  const auto it = operations_.find(key);
  if (it == operations_.end() || it->second.state != OperationState::running) return;
  auto& operation = it->second;
  transition(operation, OperationState::held);
  operation.notice_at = notice_at(operation, now);
  if (alone(key)) {
    Outcome outcome;
    outcome.contributors.push_back(me_);
    outcome.waiting = waiting_;
    outcome.attempts = operation.attempts;
    return finish(key, std::move(outcome));
  }
  to_master(Done{view_.id, key, verdicts_seen_});
}

// What is held is whole, and DONE may have made it a commit already: only a running attempt can break.
void Session::attempt_broken(const OpKey& key, PeerId link, const std::string& why, Instant) {
  const auto it = operations_.find(key);
  if (it == operations_.end() || it->second.state != OperationState::running) return;
  drop_attempt(it->second);
  reports_.emplace_back(Broken{view_.id, key, link, why});
  to_master(reports_.back());
}

void Session::offer_state(const OpKey& key, ViewId view, StateOffer offer) {
  const auto it = operations_.find(key);
  if (it == operations_.end() || it->second.view != view || view != view_.id) return;
  if (it->second.state != OperationState::running) return;
  offer.view = view;
  offer.key = key;
  offer.group = join_.group;
  it->second.offer = offer;
  to_master(std::move(offer));
}

void Session::ask_abandon(Operation& operation, ErrorCode code, const std::string& text, Instant now) {
  if (operation.state == OperationState::abandoned) return;
  operation.abandon = {operation.key, code, text};
  transition(operation, OperationState::abandoned);
  operation.verdict_by = now + timing_.verdict;
  if (alone(operation.key)) {
    const auto key = operation.key;
    drop_attempt(operation);
    return finish(key, {{code, text}, {}, 0, operation.attempts});
  }
  to_master(operation.abandon);
}

void Session::abandon(const OpKey& key, ErrorCode code, const std::string& text, Instant now) {
  if (const auto it = operations_.find(key); it != operations_.end())
    ask_abandon(it->second, code, text, now);
}

void Session::finish(const OpKey& key, Outcome outcome) {
  const auto it = operations_.find(key);
  const auto call = it->second.descriptor.call;
  const bool fetched = call == Call::sync_state || goes_straight(call);
  operations_.erase(it);
  if (fetched) release_links();
  emit(effect::Deliver{key, std::move(outcome)});
}

// Verdicts are kept until all members have seen them: a restarted master asks for them.
void Session::remember(std::uint64_t index, const Verdict& verdict) {
  verdicts_seen_ = std::max(verdicts_seen_, index);
  records_[index] = verdict;
  while (records_.size() > limits::records_max) records_.erase(records_.begin());
}

void Session::on(const Commit& m, Instant) {
  const bool repeated = m.index <= verdicts_seen_;
  remember(m.index, m.verdict);
  records_.erase(records_.begin(), records_.upper_bound(m.minimum_seen));
  waiting_ = m.verdict.waiting;
  const auto it = operations_.find(m.verdict.key);
  if (it == operations_.end()) return;
  auto& operation = it->second;
  const bool held = operation.state == OperationState::held || operation.held_when_abandoned;
  auto contributors = m.verdict.contributors;
  if (m.verdict.key.scope == Scope::pair)
    contributors = {m.verdict.key.from};
  else if (contributors.empty())
    contributors = view_.group_members(join_.group);
  if (!held || operation.view != m.verdict.view) {
    // Only a master that breaks the protocol commits what this peer does not hold.
    if (repeated) return;
    return finish(m.verdict.key, {{ErrorCode::internal, "the master committed " + call_text(operation) +
                                                            ", which this peer does not hold"},
                                  {},
                                  0,
                                  operation.attempts});
  }
  const auto scope = m.verdict.key.scope;
  const bool read_by_all = scope == Scope::run || (scope == Scope::group && single_group());
  if (read_by_all || !rules_.skip_only_on_shared_record)
    shared_waiting_ =
        std::max({shared_waiting_.value_or(0), m.verdict.waiting, std::uint32_t{m.verdict.view_due}});
  finish(m.verdict.key, {{}, std::move(contributors), m.verdict.waiting, operation.attempts});
}

void Session::on(const Failed& m, Instant) {
  if (m.index == 0) return boundary_failed(m.verdict);
  if (m.index <= verdicts_seen_) return;
  remember(m.index, m.verdict);
  const auto it = operations_.find(m.verdict.key);
  if (it == operations_.end()) return fail_early(m.verdict);
  drop_attempt(it->second);
  finish(m.verdict.key, {{reason(m.verdict.code), m.verdict.text}, {}, 0, it->second.attempts});
}

// A call that this peer has not come to yet. Where calls could never meet it will not come to it at all: it
// counts as made, so that the peers are in step again; else it fails when it comes.
void Session::fail_early(const Verdict& verdict) {
  if (decided(verdict.key)) return;
  const auto& tag = verdict.key.tag;
  auto& count = counters_[first_use(verdict.key)];
  if (verdict.code == ErrorCode::order)
    count = std::max(count, tag.count + 1);
  else if (failed_early_.size() < limits::records_max)
    failed_early_[verdict.key] = verdict;
  emit(effect::FailedEarly{verdict.key});
}

void Session::on(const StatePlan& m, Instant) {
  const auto it = operations_.find(m.key);
  if (it == operations_.end() || it->second.view != m.view || it->second.state != OperationState::running)
    return;
  const auto& offer = it->second.offer;
  const auto same = [](const StateEntry& own, const ElectedEntry& e) {
    return own.name == e.entry.name && own.dtype == e.entry.dtype && own.count == e.entry.count;
  };
  if (!offer ||
      !std::equal(offer->entries.begin(), offer->entries.end(), m.entries.begin(), m.entries.end(), same))
    return;
  emit(effect::Elected{m});
}

void Session::check_operations(Instant now) {
  bool say = false, verdict_overdue = false;
  for (auto* operation : in_posted_order()) {
    if (operation->state == OperationState::abandoned) {
      verdict_overdue |= master_up_ && now >= operation->verdict_by;
    } else if (now >= operation->deadline) {
      ask_abandon(*operation, ErrorCode::timeout,
                  "peer " + std::to_string(me_) + " waited " +
                      std::to_string((now - operation->posted_at) / millisecond) + " ms in " +
                      call_text(*operation),
                  now);
      continue;  // a peer that is alone has finished it with that
    }
    if (now >= operation->notice_at) {
      operation->notice_at = now + timing_.waiting_notice;
      say = true;
    }
  }
  // Others may take what this peer gave up: without a verdict it cannot go on beside them.
  if (verdict_overdue)
    return end_session({ErrorCode::master_lost, "the master did not answer for " +
                                                    std::to_string(timing_.verdict / millisecond) +
                                                    " ms what became of an operation"});
  if (now >= boundary_.notice_at) {
    boundary_.notice_at = now + timing_.waiting_notice;
    say = true;
  }
  if (say) send_waiting(now);
}

}  // namespace pccl
