#include "sim/process.hpp"

#include <algorithm>

#include "sim/world.hpp"

namespace pccl::sim {

namespace {

ExchangeLimits exchange_limits(const Scenario& scenario) {
  ExchangeLimits limits;
  limits.eager_bytes = std::size_t{scenario.eager_kib} * 1024;
  limits.head_start_bytes = std::size_t{scenario.head_start_kib} * 1024;
  limits.slots = scenario.slots;
  limits.own_bytes = 8u << 10;
  return limits;
}

}  // namespace

Process::Process(World& world, std::uint32_t number, Join join)
    : index(number),
      session(std::move(join), world.scenario.timing, world.scenario.rules),
      exchange(session, world.scenario.rules, exchange_limits(world.scenario)),
      data(*this),
      states(*this),
      world_(world) {
  exchange.ask_distance([this](PeerId) { return world_.scenario.head_start_kib != 0; });
}

Instant Process::now() const { return world_.now(); }

// In the order in which the runtime does it.
void Process::drain() {
  if (draining_ || !alive) return;
  draining_ = true;
  for (bool moved = true; moved && alive;) {
    moved = false;
    for (auto& e : session.take_effects()) {
      std::visit([&](auto& x) { apply(x); }, e);
      moved = true;
    }
    while (exchange.take_effects(exchange_effects_)) {
      auto taken = std::exchange(exchange_effects_, {});
      for (auto& e : taken) std::visit([&](auto& x) { apply(x); }, e);
      moved = true;
    }
    for (const auto peer : std::exchange(woken_, {})) world_.links.pull(*this, peer);
  }
  draining_ = false;
  if (session.stage() == Session::Stage::member && boundary_ != session.view().boundaries)
    world_.violated(name() + " is carried over boundary " + std::to_string(session.view().boundaries) +
                    " without having been told");
  arm();
}

void Process::arm() {
  const auto at = session.next_deadline();
  if (!alive || at >= tick_at_) return;
  tick_at_ = std::max(at, now());
  world_.for_process(*this, tick_at_ - now(), [this, when = tick_at_] { tick(when); });
}

void Process::tick(Instant at) {
  if (!alive || at != tick_at_) return;
  tick_at_ = never;
  if (now() - idle_since_ > millisecond) idle_since_ = now(), idle_ticks_ = 0;
  if (++idle_ticks_ > 200) return world_.violated(name() + " is busy doing nothing");
  session.tick(now());
  drain();
}

void Process::end(bool silently) {
  if (!alive) return;
  alive = false;
  silent = silently;
  world_.links.process_ended(*this, silently);
  world_.controls.process_ended(*this, silently);
}

// ---- the session's effects ----

void Process::apply(effect::SendMaster& e) { world_.controls.send(*this, std::move(e.message)); }
void Process::apply(effect::ReconnectMaster&) { world_.controls.reconnect(*this); }
void Process::apply(effect::Dial& e) { world_.links.dial(*this, e.peer, e.addresses); }
void Process::apply(effect::HangUp& e) { world_.links.hang_up(*this, e.peer); }
void Process::apply(effect::Notice& e) { world_.note(name() + ": " + e.text); }

// Links of any speed: orders and hints change with every other view.
MeasuredLink Process::draw_link(PeerId peer) {
  auto& rng = world_.rng;
  MeasuredLink link{peer, 1'000'000 * (1 + rng.below(1000)), std::uint32_t(rng.below(100'000)),
                    static_cast<Evidence>(1 + rng.below(last_of<Evidence>))};
  if (rng.chance(0.1)) link.bandwidth = 0;
  return link;
}

void Process::apply(effect::Probe& e) {
  const auto takes = Duration(world_.rng.below(std::uint64_t(2 * e.time)));
  world_.for_process(*this, takes, [this, round = e.round, peer = e.peer] {
    if (!alive || over()) return;
    session.probed(round, draw_link(peer));
    drain();
  });
}

void Process::apply(effect::DropAttempt& e) {
  data.stop_using(e.key);
  if (auto* memory = data.memory(e.key)) {
    const auto running = running_.find(e.key);
    const bool remade = running != running_.end() && running->second.intent.remade();
    if (remade)
      memory->lose();
    else if (world_.scenario.rules.undo)
      memory->restore();
    if (!remade && !memory->input_intact())
      world_.violated(name() + " has a changed input after an aborted attempt at " + pccl::describe(e.key) +
                      ": " + memory->text());
  }
  exchange.drop(e.key);
  states.dropped(e.key);
  if (!over()) held_.erase(e.key);
  world_.oracle.aborted(*this, e.key);
}

void Process::apply(effect::StartAttempt& e) {
  const auto& operation = *session.find(e.key);
  world_.oracle.started(*this, e.key, operation.view);
  if (operation.descriptor.call == Call::sync_state) return states.started(e.key, operation.view);
  const auto* memory = data.memory(e.key);
  exchange.begin(e.key, memory != nullptr && memory->in_place());
  data.begin(e.key);
  const auto* attempt = exchange.find(e.key);
  if (attempt != nullptr && goes_straight(attempt->descriptor.call))
    for (const auto peer : attempt->ring) session.want_link(peer, now());
}

void Process::apply(effect::ViewChanged&) {
  world_.oracle.told(*this, session.view());
  exchange.view_changed();
}

void Process::apply(effect::Deliver& e) {
  data.stop_using(e.key);
  exchange.drop(e.key);
  const auto it = running_.find(e.key);
  if (it == running_.end())
    return world_.violated(name() + " delivers " + pccl::describe(e.key) +
                           ", which it has not posted, or twice");
  const auto content = states.finished(e.key);
  world_.oracle.delivered(*this, e.key, it->second.intent, it->second.root, e.outcome, data.memory(e.key),
                          content);
  const bool unknown = e.outcome.error.code == ErrorCode::outcome_unknown;
  if (over() && e.outcome.error.code != ErrorCode::closed && unknown != held_.contains(e.key))
    world_.violated(name() + " held " + pccl::describe(e.key) + (unknown ? " not" : "") +
                    " when it was told: " + e.outcome.error.text);
  held_.erase(e.key);
  data.forget(e.key);
  running_.erase(it);
  if (world_.rng.chance(world_.scenario.shape.report) && !over())
    for (const auto& m : session.view().members)
      if (m.peer != session.peer() && world_.rng.chance(0.7)) session.note_links({draw_link(m.peer)}, now());
  if (!scripted) world_.for_process(*this, 0, [this] { advance(); });
}

void Process::apply(effect::Elected& e) {
  if (running_.contains(e.plan.key)) states.elected(e.plan);
}

void Process::complete(const OpKey& key) {
  if (oversleeps) return overslept.push_back(key);
  session.attempt_complete(key, now());
  const auto* operation = session.find(key);
  if (operation != nullptr && operation->state == OperationState::held) held_.insert(key);
}

void Process::apply(effect::Admitted&) {
  world_.oracle.admitted(*this);
  boundary_ = session.view().boundaries;
  if (!scripted) start_round();
}

void Process::apply(effect::BoundaryPassed& e) {
  world_.oracle.passed(*this, session.view().boundaries, e.skipped);
  ++rounds_;
  if (!e.skipped) boundary_ = session.view().boundaries, rounds_ = 0;
  if (!scripted) start_round();
}

void Process::apply(effect::BoundaryFailed& e) {
  world_.oracle.boundary_failed(*this, e.why);
  if (!scripted && !over()) world_.for_process(*this, millisecond, [this] { cross(); });
}

void Process::apply(effect::Gone& e) {
  world_.oracle.gone(*this, e.why);
  world_.controls.leave(*this);
  if (!scripted)
    world_.for_process(*this, Duration(world_.rng.below(50 * millisecond)), [this] { end(false); });
}

// ---- the exchange's effects ----

void Process::apply(exchange_effect::SendReady& e) { world_.links.send_ready(*this, e.to, e.ready); }
void Process::apply(exchange_effect::Do& e) { data.run(e); }
void Process::apply(exchange_effect::Wake& e) { woken_.insert(e.peer); }
void Process::apply(exchange_effect::Complete& e) {
  if (exchange.current(e.key, e.attempt)) complete(e.key);
}
void Process::apply(exchange_effect::More& e) {
  world_.for_process(*this, 0, [this, more = e] {
    if (!alive || over()) return;
    exchange.go_on(more.key, more.attempt);
    drain();
  });
}
void Process::apply(exchange_effect::Mismatch& e) {
  if (exchange.current(e.key, e.attempt)) session.abandon(e.key, ErrorCode::mismatch, e.text, now());
}
void Process::apply(exchange_effect::Replay& e) { data.replay(e.parked); }
void Process::apply(exchange_effect::Discard& e) { data.discard(e.parked); }

}  // namespace pccl::sim
