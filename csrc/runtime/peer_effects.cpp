// What the session decides, done: attempts begin and end, views change, verdicts reach their callers. On the
// I/O thread.
#include <algorithm>

#include "base/rng.hpp"
#include "runtime/peer_runtime.hpp"

namespace pccl {

void PeerRuntime::drain() {
  if (session_ == nullptr || draining_) return;
  draining_ = true;
  bool moved = true;
  while (moved) {
    moved = false;
    for (auto& e : session_->take_effects()) {
      std::visit([&](auto& x) { apply(x); }, e);
      moved = true;
    }
    while (exchange_->take_effects(exchange_effects_)) {
      auto taken = std::exchange(exchange_effects_, {});
      for (auto& e : taken) std::visit([&](auto& x) { apply(x); }, e);
      moved = true;
    }
    for (const auto peer : std::exchange(woken_, {})) pump(peer);
    // Also what a chunk that cannot leave means for its operation.
    moved |= find_senders() || session_->has_effects();
  }
  draining_ = false;
}

void PeerRuntime::apply(effect::SendMaster& e) { master_.send(e.message); }
void PeerRuntime::apply(effect::ReconnectMaster&) { master_.reconnect("the master was silent for too long"); }
void PeerRuntime::apply(effect::Dial& e) { links_.dial(e.peer, std::move(e.addresses)); }
void PeerRuntime::apply(effect::HangUp& e) {
  forget_in_flight(e.peer);
  links_.hang_up(e.peer);
}
void PeerRuntime::apply(effect::Probe& e) { prober_.begin(e.peer, e.round, e.time, monotonic_now()); }
void PeerRuntime::apply(effect::Notice& e) {
  note_missing(monotonic_now());
  log(e.text);
}

// What operations showed since the last time.
void PeerRuntime::note_speeds(Instant now) {
  if (session_ == nullptr || prober_.active()) return;
  if (const auto measured = speeds_.take(); !measured.empty()) session_->note_links(measured, now);
}

namespace {
// Different for every operation and peer, the same for every attempt; in deterministic runs also the same in
// every run.
std::uint64_t draw_seed(const Session& session, const OpKey& key) {
  const auto& view = session.view();
  const auto group = view.group_members(session.identity().group);
  const auto rank = std::uint64_t(std::ranges::find(group, session.peer()) - group.begin());
  const bool fixed = view.hints.deterministic;
  auto seed = mix64((fixed ? 0 : session.run()) ^ mix64(fixed ? rank + 1 : session.peer()));
  for (const std::uint64_t part :
       {std::uint64_t(key.scope), std::uint64_t{key.group}, std::uint64_t{key.tag.boundary},
        std::uint64_t{key.tag.name}, std::uint64_t{key.tag.count}})
    seed = mix64(seed ^ part);
  return seed;
}
}  // namespace

namespace {
std::uint64_t view_word(ViewId id) { return std::uint64_t{id.incarnation} << 32 | id.number; }
}  // namespace

// Its memory is for one rank: with another one, nothing may be written there.
const CodedSums* PeerRuntime::sums_of(const OpKey& key, const Running& running) {
  if (running.sums == nullptr) return nullptr;
  const auto group = session_->view().group_members(session_->identity().group);
  if (running.position < group.size() && group[running.position] == session_->peer())
    return running.sums.get();
  session_->abandon(key, ErrorCode::usage,
                    "peer " + std::to_string(session_->peer()) + " does not have rank " +
                        std::to_string(running.position) + " (any more): call it again",
                    monotonic_now());
  return nullptr;
}

void PeerRuntime::apply(effect::StartAttempt& e) {
  if (const auto state = states_.find(e.key); state != states_.end()) {
    state->second->view = session_->view().id;
    StateEvent event(StateEvent::Kind::start);
    event.attempt = session_->find(e.key)->attempts;
    event.view = session_->view().id;
    return state->second->events.push(std::move(event));
  }
  const auto it = running_.find(e.key);
  if (it == running_.end()) return;
  if (const auto* operation = session_->find(e.key))
    note(EventKind::started, monotonic_now(), e.key, it->second.call, no_peer, operation->attempts,
         view_word(session_->view().id));
  it->second.memory->set_draw(draw_seed(*session_, e.key));
  it->second.held = 0;
  exchange_->begin(e.key, it->second.memory->in_place(), sums_of(e.key, it->second),
                   it->second.limit.has_value());
  const auto* attempt = exchange_->find(e.key);
  if (attempt == nullptr || attempt->executor == nullptr) return;
  it->second.memory->begin(*attempt->executor);
  it->second.ring = attempt->ring;
  if (!goes_straight(attempt->descriptor.call)) return;
  for (const auto peer : attempt->ring)  // beyond the ring, where there is no mesh
    session_->want_link(peer, monotonic_now());
}

void PeerRuntime::apply(effect::DropAttempt& e) {
  stop_using(e.key);
  if (const auto it = running_.find(e.key); it != running_.end()) {
    it->second.memory->restore();
    note_flows(e.key, it->second);
    note(EventKind::dropped, monotonic_now(), e.key, it->second.call);
  }
  exchange_->drop(e.key);
}

void PeerRuntime::apply(effect::FailedEarly& e) { exchange_->failed_early(e.key); }

void PeerRuntime::apply(effect::ViewChanged&) {
  prober_.stop();
  ++totals_.views;
  publish();
  const auto& seen = session_->view();
  note(EventKind::view, monotonic_now(), no_peer, view_word(seen.id), seen.members.size());
  const auto& hints = session_->view().hints;
  links_.advise(hints.stripes, paths_of(hints, session_->identity().group).ring_bandwidth,
                session_->ring().size());
  exchange_->view_changed();
}

void PeerRuntime::apply(effect::Deliver& e) {
  OperationResult result{std::move(e.outcome), 0, 0, 0, 0};
  stop_using(e.key);
  if (const auto it = running_.find(e.key); it != running_.end()) {
    auto& running = it->second;
    result.bytes_sent = running.sent;
    result.bytes_received = running.received;
    const auto now = monotonic_now();
    result.took = now - running.started;
    note_end(e.key, running, result.outcome, now);
    count_end(result);
    result.to_result = running.held == 0 ? 0 : running.held - running.started;
    if (running.weight)
      result.weight =
          result.outcome.contributors.size() == 1 ? *running.weight : running.memory->total_weight();
    if (!result.outcome.error) report_skipped(e.key, running, result);
    auto handle = running.handle;
    undo_pool_.give(running.memory->release_undo(), now);
    exchange_->drop(e.key);
    running_.erase(it);
    publish();
    return handle->result.set(std::move(result));
  }
  exchange_->drop(e.key);
  if (const auto it = states_.find(e.key); it != states_.end()) {
    StateEvent event(StateEvent::Kind::done);
    event.result = std::move(result);
    auto handle = it->second;
    event.result.bytes_sent = handle->sent;
    event.result.bytes_received = handle->received;
    const auto now = monotonic_now();
    event.result.took = now - handle->started;
    Running state{nullptr, nullptr, std::nullopt, handle->started};
    state.call = Call::sync_state;
    note_end(e.key, state, event.result.outcome, now);
    count_end(event.result);
    states_.erase(it);
    publish();
    handle->events.push(std::move(event));
  }
}

void PeerRuntime::apply(effect::Elected& e) {
  const auto it = states_.find(e.plan.key);
  if (it == states_.end()) return;
  StateEvent event(StateEvent::Kind::elected);
  event.plan = std::move(e.plan);
  it->second->events.push(std::move(event));
}

void PeerRuntime::apply(effect::Admitted&) {
  recorder_.identify(session_->run(), session_->peer(), session_->identity().island);
  publish();
  admitted_->set({});
}

void PeerRuntime::apply(effect::BoundaryPassed&) {
  publish();
  note(EventKind::boundary, monotonic_now(), no_peer, 1);
  auto boundary = std::exchange(boundary_, nullptr);
  if (boundary == nullptr) return;
  BoundaryResult result;
  result.changed = session_->view().ids() != boundary_members_;
  result.rings = session_->view().rings;
  boundary->set(std::move(result));
}

void PeerRuntime::apply(effect::BoundaryFailed& e) {
  prober_.stop();
  note(EventKind::boundary, monotonic_now(), no_peer, 2);
  publish();  // first: the caller may ask at once whether it is still a member
  if (auto boundary = std::exchange(boundary_, nullptr)) boundary->set({std::move(e.why), false});
}

void PeerRuntime::apply(effect::Gone& e) { end(e.why); }

}  // namespace pccl
