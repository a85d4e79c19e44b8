// Membership: the master's connection, the door, views, and how a session ends.
#include "protocol/session.hpp"

#include <algorithm>

namespace pccl {

Session::Session(Join join, Timing timing, Rules rules)
    : join_(std::move(join)), timing_(timing), rules_(rules) {}

void Session::on_master_up(Instant now) {
  if (stage_ == Stage::gone) return;
  master_up_ = true;
  master_heard_ = now;
  master_down_since_ = never;
  heartbeat_at_ = now + timing_.heartbeat;
  if (door_notice_at_ == never) door_notice_at_ = now + timing_.waiting_notice;
  if (me_ == no_peer) return to_master(join_);
  to_master(registration());
  figures_told_ = figures_.empty();
  for (auto& [key, operation] : operations_)
    if (operation.state == OperationState::abandoned) operation.verdict_by = now + timing_.verdict;
  resend_statements();
}

void Session::on_master_down(Instant now, const std::string& why) {
  if (stage_ == Stage::gone || !master_up_) return;
  master_up_ = false;
  master_down_since_ = now;
  emit(effect::Notice{"lost the connection to the master (" + why + "), dialling again"});
}

Register Session::registration() const {
  Register r;
  r.peer = me_;
  r.run = run_;
  r.view = view_;
  r.boundary_waiting = boundary_.number;
  r.boundary_islands = boundary_.islands;
  r.verdicts_seen = verdicts_seen_;
  for (const auto& [key, operation] : operations_) {
    const bool held = operation.state == OperationState::held || operation.held_when_abandoned;
    r.open.push_back({key, operation.view, held});
  }
  for (const auto& [index, verdict] : records_) r.verdicts.push_back(verdict);
  r.join = join_;
  return r;
}

// What this peer said to a master that may not have heard it. Votes are repeated only within their view:
// after a new view there are none.
void Session::resend_statements() {
  for (const auto& report : reports_) to_master(report);
  for (auto* operation : in_posted_order()) {
    if (operation->offer) to_master(*operation->offer);
    if (operation->state == OperationState::held) to_master(Done{view_.id, operation->key, verdicts_seen_});
    if (operation->state == OperationState::abandoned) to_master(operation->abandon);
  }
  if (boundary_.number != 0) send_boundary();
}

void Session::on(const ToPeer& message, Instant now) {
  if (stage_ == Stage::gone) return;
  master_heard_ = now;
  std::visit([&](const auto& m) { on(m, now); }, message);
}

void Session::on(const Welcome& m, Instant) {
  if (me_ != no_peer) return;
  me_ = m.peer;
  run_ = m.run;
  join_.island = m.island;
  if (m.heartbeat_ms > 0) timing_.heartbeat = m.heartbeat_ms * millisecond;
  stage_ = Stage::door;
}

void Session::on(const Refused& m, Instant) { end_session({reason(m.code), m.text}); }

void Session::on(const Evicted& m, Instant) { end_session({reason(m.code), m.text}); }

void Session::on(const Suspended& m, Instant) { end_session({ErrorCode::no_quorum, m.text}); }

void Session::on(const Pulse& m, Instant now) {
  waiting_ = m.waiting;
  door_ = m.door;
  check_door(now);
}

bool Session::has_door_news() const {
  return (stage_ == Stage::joining || stage_ == Stage::door) && !door_.empty() && door_ != door_said_;
}

// One line for each change, and never two within a second.
void Session::check_door(Instant now) {
  if (!has_door_news() || now < door_notice_at_) return;
  door_said_ = door_;
  door_notice_at_ = now + timing_.waiting_notice;
  emit(effect::Notice{"not in the run yet: " + door_});
}

// A result that this peer holds may have been committed without it: it must not guess.
Error Session::fate_of(const Operation& operation, const Error& why) const {
  const bool held = operation.state == OperationState::held || operation.held_when_abandoned;
  if (!held || why.code == ErrorCode::closed) return why;
  return {ErrorCode::outcome_unknown,
          "this peer held the whole result, and whether the others took it is unknown: " + why.text};
}

void Session::end_session(Error why) {
  if (stage_ == Stage::gone) return;
  std::vector<OpKey> open;
  for (auto* operation : in_posted_order()) open.push_back(operation->key);
  for (const auto& key : open) {
    auto& operation = operations_.at(key);
    auto fate = fate_of(operation, why);  // before the attempt is dropped, and with it what was held
    drop_attempt(operation);
    finish(key, {std::move(fate), {}, 0, operation.attempts});
  }
  if (boundary_.number != 0) {
    boundary_ = {};
    emit(effect::BoundaryFailed{why});
  }
  stage_ = Stage::gone;
  end_ = why;
  emit(effect::Gone{std::move(why)});
}

void Session::leave(Instant) {
  to_master(Leave{});
  end_session({ErrorCode::closed, "this peer has left the run"});
}

bool Session::alone(const OpKey& key) const {
  return std::none_of(view_.members.begin(), view_.members.end(), [&](const Member& m) {
    if (m.peer == me_) return false;
    return key.scope == Scope::pair ? key.names(m.peer) : key.scope == Scope::run || m.group == join_.group;
  });
}

bool Session::single_group() const {
  return std::all_of(view_.members.begin(), view_.members.end(),
                     [&](const Member& m) { return m.group == join_.group; });
}

void Session::on(const ViewMessage& m, Instant now) {
  const bool newer = rules_.order_by_incarnation ? m.view.id > view_.id : m.view.id.number > view_.id.number;
  if (!newer || me_ == no_peer) return;
  if (!m.view.consistent())
    return end_session(
        {ErrorCode::protocol, "the master sent a view that names a peer twice, or peers of two roles"});
  const auto* mine = m.view.find(me_);
  if (mine == nullptr) return end_session({ErrorCode::evicted, "the master's view does not name this peer"});
  if (mine->group != join_.group || mine->role != join_.role)
    return end_session(
        {ErrorCode::protocol, "the master sent a view in which this peer has another group or role"});
  const auto before = std::exchange(view_, m.view);
  waiting_ = m.view.waiting;
  note_departures(before);
  const bool first = stage_ == Stage::door;
  stage_ = Stage::member;
  reported_.clear();
  reports_.clear();
  for (auto* operation : in_posted_order())
    if (rules_.view_restarts_all || operation->state == OperationState::held) drop_attempt(*operation);
  emit(effect::ViewChanged{});
  probe_.reset();
  for (const auto& old : before.members)
    if (view_.find(old.peer) == nullptr && links_.erase(old.peer) > 0) emit(effect::HangUp{old.peer});
  reconcile_links(now);
  if (first) {
    proof_.answered = true;
    emit(effect::Admitted{});
  } else if (!m.why.empty()) {
    emit(effect::Notice{"view " + std::to_string(view_.id.number) + ": " + m.why});
  }
  if (boundary_.number != 0) {
    if (view_.boundaries >= boundary_.number)
      pass_boundary(view_.boundaries, false);
    else if (rules_.resend_boundary)
      send_boundary();
  }
  restart_operations(before, now);
}

// ---- boundaries ----

bool Session::may_skip_boundary() const { return shared_waiting_ && *shared_waiting_ == 0; }

Result<bool> Session::enter_boundary(std::uint32_t islands, Duration timeout, Instant now,
                                     std::uint32_t probe_ms) {
  if (stage_ != Stage::member) return end_ ? end_ : Error{ErrorCode::usage, "this peer is not admitted yet"};
  if (boundary_.number != 0 && (!boundary_.given_up || boundary_.again))
    return Error{ErrorCode::usage, "another thread is in update_topology already"};
  if (rules_.no_boundary_in_flight && !operations_.empty())
    return Error{ErrorCode::usage, "update_topology with an operation in flight (" +
                                       std::string(name(operations_.begin()->second.descriptor.call)) + ", " +
                                       describe(operations_.begin()->first) + "): wait for it first"};
  if (probe_ms != 0 && view_.hints.deterministic)
    return Error{ErrorCode::usage,
                 "deterministic=True fixes the order of the peers: there is nothing to optimize"};
  const bool again = boundary_.number != 0;
  if (!again && islands == 0 && probe_ms == 0 && may_skip_boundary()) {
    shared_waiting_.reset();  // a record serves once: who only ever asks for news must get some
    emit(effect::BoundaryPassed{true});
    return true;
  }
  boundary_.number = view_.boundaries + 1;
  boundary_.islands = islands;
  boundary_.probe_ms = probe_ms;
  boundary_.deadline = timeout == never ? never : now + timeout;
  boundary_.notice_at = now + timing_.waiting_notice;
  boundary_.again = again;
  if (!again) {
    report_links(now);
    send_boundary();
  }
  return false;
}

void Session::send_boundary() {
  to_master(EnterBoundary{view_.id, boundary_.number, boundary_.islands, verdicts_seen_,
                          bool(boundary_.given_up), boundary_.probe_ms});
}

// Until the master has answered it may count this peer in, and the boundary may pass.
void Session::withdraw(Error why) {
  boundary_.deadline = boundary_.notice_at = never;
  boundary_.again = false;
  if (std::exchange(boundary_.given_up, std::move(why))) return;  // it has been said
  send_boundary();
}

void Session::leave_boundary(Instant) {
  if (boundary_.number != 0) withdraw({ErrorCode::cancelled, "the caller left update_topology"});
}

// A withdrawal is answered as such, whatever else the master said before it came.
void Session::boundary_failed(const Verdict& verdict) {
  const bool answers = (verdict.code == ErrorCode::cancelled) == bool(boundary_.given_up);
  if (boundary_.number == 0 || verdict.key.tag.boundary != boundary_.number || !answers) return;
  if (boundary_.again) {
    boundary_.given_up = {};
    boundary_.again = false;
    return send_boundary();
  }
  auto why = boundary_.given_up ? std::move(boundary_.given_up) : Error{reason(verdict.code), verdict.text};
  boundary_ = {};
  probe_.reset();
  emit(effect::BoundaryFailed{std::move(why)});
}

void Session::on(const Passed& m, Instant) {
  if (boundary_.number == 0 || m.boundaries < boundary_.number || m.view != view_.id) return;
  pass_boundary(m.boundaries, false);
}

// All peers stand at the same place: counters start again, so that a joiner has the same ones.
void Session::pass_boundary(std::uint32_t boundaries, bool skipped) {
  boundary_ = {};
  view_.boundaries = boundaries;
  counters_.clear();
  departed_.clear();
  std::erase_if(failed_early_, [&](const auto& entry) { return entry.first.tag.boundary < boundaries; });
  shared_waiting_.reset();
  emit(effect::BoundaryPassed{skipped});
}

// ---- time ----

void Session::tick(Instant now) {
  if (stage_ == Stage::gone) return;
  const bool paused = now - ticked_ > 2 * timing_.heartbeat;  // what was said meanwhile is not read yet
  ticked_ = now;
  check_master(now, paused);
  if (stage_ == Stage::gone) return;
  check_door(now);
  check_proof(now);
  check_links(now);
  check_operations(now);
  check_probe(now);
  if (!measured_.empty() && now >= report_at_) report_links(now);
  if (boundary_.number != 0 && now >= boundary_.deadline)
    withdraw({ErrorCode::timeout, why_boundary_timed_out()});
}

std::string Session::why_boundary_timed_out() const {
  std::set<std::string_view> islands;
  for (const auto& m : view_.members) islands.insert(m.island);
  auto text = boundary_.islands > islands.size()
                  ? "the run has " + std::to_string(islands.size()) + " of " +
                        std::to_string(boundary_.islands) + " islands, and the time to wait for them is over"
                  : "not all peers came to update_topology in time";
  for (const auto peer : boundary_.missing) {
    const auto* member = view_.find(peer);
    text += (peer == boundary_.missing.front() ? "; missing: peer " : ", peer ") + std::to_string(peer) +
            (member == nullptr ? "" : " (island " + member->island + ")");
  }
  return text;
}

void Session::check_master(Instant now, bool paused) {
  if (master_up_) {
    if (me_ != no_peer && now >= heartbeat_at_) {
      to_master(Heartbeat{verdicts_seen_});
      if (!std::exchange(figures_told_, true)) to_master(Figures{figures_});
      heartbeat_at_ = now + timing_.heartbeat;
    }
    if (me_ != no_peer && !paused &&
        now - master_heard_ > timing_.heartbeat * timing_.heartbeats_missed_max) {
      master_heard_ = now;
      emit(effect::ReconnectMaster{});
    }
  } else if (master_down_since_ != never && now - master_down_since_ > timing_.master_lost) {
    end_session({ErrorCode::master_lost, "the master has not answered for " +
                                             std::to_string(timing_.master_lost / millisecond) +
                                             " ms; start it again and join the run anew"});
  }
}

Instant Session::next_deadline() const {
  if (stage_ == Stage::gone) return never;
  Instant next = never;
  const auto consider = [&](Instant at) { next = std::min(next, at); };
  if (master_up_ && me_ != no_peer) {
    consider(heartbeat_at_);
    consider(master_heard_ + timing_.heartbeat * timing_.heartbeats_missed_max + 1);
  } else if (!master_up_ && master_down_since_ != never) {
    consider(master_down_since_ + timing_.master_lost + 1);
  }
  if (!proof_.answered) consider(proof_.deadline);
  if (!measured_.empty() && stage_ == Stage::member && master_up_) consider(report_at_);
  if (probe_ && !probe_started_) consider(probe_by_);
  if (has_door_news()) consider(door_notice_at_);
  for (const auto& [peer, link] : links_) {
    if (link.up || !(link.needed || link.wanted)) continue;
    if (!link.dialling) consider(link.retry_at);
    if (stage_ != Stage::door && link.wanted_since != never) consider(link.wanted_since + timing_.redial);
  }
  for (const auto& [key, operation] : operations_) {
    consider(operation.state != OperationState::abandoned ? operation.deadline
             : master_up_                                 ? operation.verdict_by
                                                          : never);
    consider(operation.notice_at);
  }
  if (boundary_.number != 0) consider(std::min(boundary_.deadline, boundary_.notice_at));
  return next;
}

}  // namespace pccl
