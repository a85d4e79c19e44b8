// Connections and liveness at the master.
#include "protocol/master.hpp"

#include <algorithm>

namespace pccl {

namespace {
// Verdict indices of different incarnations never mix.
std::uint64_t first_index(std::uint32_t incarnation) { return (std::uint64_t{incarnation} << 32) + 1; }
}  // namespace

Master::Master(MasterConfig config, Instant now)
    : timing_(config.timing),
      rules_(config.rules),
      role_(config.role),
      run_(config.run),
      next_run_(config.next_run),
      next_peer_(first_peer(config.role)),
      stored_(std::move(config.stored)) {
  next_index_ = first_index(0);
  pulse_at_ = now + timing_.heartbeat;
  if (!config.restarted) return;
  phase_ = Phase::listening;
  listen_until_ = now + timing_.grace;
  run_over_at_ = listen_until_ + timing_.heartbeat * timing_.heartbeats_missed_max + timing_.master_lost;
  knock_at_members();
}

PeerId Master::peer_of(ConnectionId c) const {
  const auto it = connections_.find(c);
  return it == connections_.end() ? no_peer : it->second;
}

void Master::send_to(ConnectionId c, ToPeer message) {
  if (c != no_connection) emit(master_effect::Send{c, std::move(message)});
}

void Master::send(PeerId peer, ToPeer message) {
  if (const auto it = peers_.find(peer); it != peers_.end())
    send_to(it->second.connection, std::move(message));
}

MasterEffects Master::take_effects() {
  auto taken = std::exchange(effects_, {});
  for (auto& late : held_back_) taken.push_back(std::move(late));
  held_back_.clear();
  return taken;
}

void Master::on(ConnectionId c, const ToMaster& message, Instant now) {
  const auto peer = peer_of(c);
  const bool introduces = std::holds_alternative<Join>(message) || std::holds_alternative<Register>(message);
  if (early_joins_.contains(c)) return refuse(c, ErrorCode::protocol, "it said more before it was let in");
  if (peer == no_peer && !introduces)
    return refuse(c, ErrorCode::protocol, "a connection starts with Join or Register");
  if (peer != no_peer && introduces) return evict(peer, "it introduced itself twice on one connection", now);
  if (peer != no_peer) peers_.at(peer).heard = now;
  std::visit([&](const auto& m) { on(c, peer, m, now); }, message);
  let_held_in(now);
}

void Master::on(ConnectionId, PeerId peer, const Heartbeat& m, Instant) {
  auto& state = peers_.at(peer);
  state.verdicts_seen = std::max(state.verdicts_seen, m.verdicts_seen);
}

void Master::refuse(ConnectionId c, ErrorCode code, const std::string& text) {
  early_joins_.erase(c);
  send_to(c, Refused{code, text});
  emit(master_effect::Close{c});
}

// At once, or when it comes back and asks.
void Master::tell_gone(ConnectionId c, PeerId peer, ErrorCode code) {
  const auto why = departures_.why(peer);
  send_to(c, Evicted{code, "the run goes on without this peer" + (why.empty() ? "" : ": " + why) +
                               "; call rejoin() to come back as a new one"});
  emit(master_effect::Close{c});
}

void Master::forget_peer(PeerId peer) {
  if (const auto it = peers_.find(peer); it != peers_.end()) {
    connections_.erase(it->second.connection);
    wiring_.forget(peer);
    peers_.erase(it);
    at_boundary_.erase(peer);
    blocked_.erase(peer);
  }
}

// A broken connection alone is no death: the peer may come back. With a second witness it is one, at once.
void Master::on_closed(ConnectionId c, Instant now) {
  const auto peer = peer_of(c);
  connections_.erase(c);
  early_joins_.erase(c);
  const auto it = peers_.find(peer);
  if (it == peers_.end() || it->second.connection != c) return;
  it->second.connection = no_connection;
  it->second.lost_since = now;
  liveness_at_ = std::min(liveness_at_, silent_at(it->second));
  if (!member(peer))
    drop_from_door(peer, "peer " + std::to_string(peer) + " went away while it waited at the door",
                   ErrorCode::evicted);
  else
    judge_links(now);
  if (member(peer)) emit(master_effect::Knock{peer, it->second.join.reachable_at});
  let_held_in(now);
}

// The second witness where no other peer has a link to it. Whoever came back meanwhile lives.
void Master::on_refused(PeerId peer, Instant now) {
  if (phase_ == Phase::listening) refused_.insert(peer);
  const auto it = peers_.find(peer);
  if (it == peers_.end() || it->second.lost_since == never || !member(peer)) return;
  suspicions_[{no_peer, peer}].why = "nobody listens at its address any more";
  judge_links(now);
  let_held_in(now);
}

// When it counts as lost, if nothing more is heard of it.
Instant Master::silent_at(const Peer& state) const {
  const auto silent = state.heard + timing_.heartbeat * timing_.heartbeats_missed_max + 1;
  return state.lost_since == never ? silent : std::min(silent, state.lost_since + timing_.reconnect + 1);
}

// All peers are looked at only when the first of them may be lost. Whoever has been heard since has moved
// that instant.
void Master::check_silence(Instant now) {
  if (now < liveness_at_) return;
  liveness_at_ = never;
  std::set<std::string> gone;
  std::string why;
  std::vector<PeerId> waiting_at_door;
  for (const auto& [peer, state] : peers_) {
    if (now < silent_at(state)) {
      liveness_at_ = std::min(liveness_at_, silent_at(state));
      continue;
    }
    const bool lost = state.lost_since != never && now - state.lost_since > timing_.reconnect;
    if (const auto* m = index_.find(peer)) {
      gone.insert(m->island);
      why += (why.empty() ? "" : "; ") + ("peer " + std::to_string(peer)) +
             (lost ? " lost its connection and did not come back for " + in_words(timing_.reconnect)
                   : " was silent for " + in_words(timing_.heartbeat * timing_.heartbeats_missed_max) +
                         " (heartbeats_missed_max=" + std::to_string(timing_.heartbeats_missed_max) + ")");
    } else {
      waiting_at_door.push_back(peer);
    }
  }
  // The door first: where all members are gone, those at the door begin anew.
  for (const auto peer : waiting_at_door)
    drop_from_door(peer, "peer " + std::to_string(peer) + " was silent at the door", ErrorCode::evicted);
  if (!gone.empty()) lose(gone, why, RecentFailure::Kind::evicted, now);
}

void Master::broadcast_pulse() {
  for (const auto& [peer, state] : peers_)
    if (!door_.contains(state.join.island) || member(peer)) send_to(state.connection, Pulse{waiting(), {}});
}

void Master::tick(Instant now) {
  // This process's own pause is nobody else's silence: what they said meanwhile is read before the next turn.
  const bool paused = now - ticked_ > 2 * timing_.heartbeat;
  ticked_ = now;
  if (now >= pulse_at_) {
    pulse_at_ = now + timing_.heartbeat;
    broadcast_pulse();
    door_news_at_ = now;
  }
  if (now >= door_news_at_) tell_door(now);
  if (phase_ != Phase::serving) return try_recover(now);
  if (!paused) check_silence(now);
  judge_links(now);
  answer_askers(now);
  judge_deadlines(now);
  judge_stragglers(now);
  look_at_links(now);
  check_probes(now);
  let_held_in(now);
}

Instant Master::next_deadline() const {
  Instant next = std::min(pulse_at_, door_news_at_);
  if (phase_ != Phase::serving) return std::min(next, listen_until_);
  next = std::min({next, judge_at_, liveness_at_, look_at_});
  if (probing_) next = std::min(next, probing_->deadline);
  Instant posted = never;
  for (const auto& [key, operation] : operations_) {
    posted = std::min(posted, operation.all_posted_at);
    next = std::min(next, operation.answer_at);
    if (timing_.straggler != 0 && operation.asked_since != never)
      next = std::min(next, operation.asked_since + timing_.straggler);
  }
  return posted == never ? next : std::min(next, posted + adaptive_deadline() + 1);
}

}  // namespace pccl
