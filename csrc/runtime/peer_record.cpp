// What a peer records of its operations and links, on the I/O thread; diagnosis of what runs now is in
// peer_diagnosis.cpp.
#include <algorithm>

#include "runtime/peer_runtime.hpp"

namespace pccl {

void PeerRuntime::note(EventKind kind, Instant at, PeerId peer, std::uint64_t a, std::uint64_t b) {
  recorder_.note({kind, at, {}, Call::update_topology, peer, a, b});
}

void PeerRuntime::note(EventKind kind, Instant at, const OpKey& key, Call call, PeerId peer, std::uint64_t a,
                       std::uint64_t b) {
  recorder_.note({kind, at, key, call, peer, a, b});
}

void PeerRuntime::note_posted(const Running& running, const OpKey& key) {
  note(EventKind::posted, running.started, key, running.call, no_peer, running.bytes);
}

void PeerRuntime::note_sent(PeerId peer, const OpKey& key, std::uint64_t bytes) {
  auto& running = running_.at(key);
  running.sent += bytes;
  if (!recorder_.on()) return;
  const auto now = monotonic_now();
  auto& flow = running.flows.at(peer);
  flow.sent += bytes;
  flow.last_sent = now;
  auto& full = full_[peer];
  if (full.is_full()) full.takes(now);
  if (flow.first_sent != 0) return;
  flow.first_sent = now;
  flow.full_before = full.total(now);
  note(EventKind::first_sent, now, key, running.call, peer);
}

// Its first bytes are there; note_arrived(): all of them are.
void PeerRuntime::note_arriving(PeerId peer, const OpKey& key, std::uint64_t bytes) {
  auto& running = running_.at(key);
  running.received += bytes;
  if (!recorder_.on()) return;
  auto& flow = running.flows.at(peer);
  flow.received += bytes;
  flow.last_received = monotonic_now();
  if (flow.first_received != 0) return;
  flow.first_received = flow.last_received;
  note(EventKind::first_received, flow.first_received, key, running.call, peer);
}

void PeerRuntime::note_arrived(PeerId peer, const OpKey& key) {
  if (const auto it = running_.find(key); recorder_.on() && it != running_.end())
    it->second.flows.at(peer).last_received = monotonic_now();
}

// The attempt is over: what its links carried.
void PeerRuntime::note_flows(const OpKey& key, Running& running) {
  for (const auto& flow : running.flows.all()) {
    if (flow.first_sent != 0)
      note(EventKind::last_sent, flow.last_sent, key, running.call, flow.peer, flow.sent,
           std::uint64_t(full_[flow.peer].total(flow.last_sent) - flow.full_before));
    if (flow.first_received != 0)
      note(EventKind::last_received, flow.last_received, key, running.call, flow.peer, flow.received);
  }
  running.flows.clear();
}

void PeerRuntime::note_end(const OpKey& key, const Running& running, const Outcome& outcome, Instant now) {
  const bool failed = bool(outcome.error);
  note(failed ? EventKind::failed : EventKind::committed, now, key, running.call, no_peer,
       failed ? std::uint64_t(outcome.error.code) : std::uint64_t(now - running.started), outcome.attempts);
  if (failed) dump_failure(outcome, now);
}

// Whom an operation waits for, as the master has just told.
void PeerRuntime::note_missing(Instant now) {
  for (const auto& [key, operation] : session_->operations()) {
    const auto& all = operation.hindrances;
    for (std::size_t i = 0; i < std::min(all.size(), limits::names_told_max); ++i)
      note(EventKind::waits, now, key, operation.descriptor.call, all[i].peer, std::uint64_t(all[i].trouble),
           all[i].other);
  }
}

void PeerRuntime::count_end(const OperationResult& result) {
  ++(result.outcome.error ? totals_.failed : totals_.committed);
  totals_.redone += std::max(result.outcome.attempts, 1u) - 1;
  totals_.bytes_sent += result.bytes_sent;
  totals_.bytes_received += result.bytes_received;
  if (!result.outcome.error) totals_.in_operations += result.took;
}

// What led to it, before the ring goes on over it: a copy beside the ring's own file, few of them and not
// often. Where the call was wrong, or its caller did not want it any more, its text says all there is.
void PeerRuntime::dump_failure(const Outcome& outcome, Instant now) {
  constexpr Duration pause = 5 * second;
  constexpr std::uint32_t dumps_max = 16;
  const auto code = outcome.error.code;
  if (recorder_.file().empty() || dumps_ >= dumps_max || (dumps_ > 0 && now - dumped_at_ < pause)) return;
  if (code == ErrorCode::usage || code == ErrorCode::cancelled || code == ErrorCode::closed) return;
  dumped_at_ = now;
  const auto path = recorder_.file() + "." + std::to_string(++dumps_) + ".pccltrace";
  if (const auto why = write_trace(path, recorder_.copy()); !why.empty())
    log("no dump of the last events: " + why);
  else
    log("the last events before this failure are in " + path);
}

}  // namespace pccl
