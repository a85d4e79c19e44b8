// What a peer records of its operations and links, on the I/O thread; diagnosis of what runs now is in
// peer_diagnosis.cpp.
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
}

}  // namespace pccl
