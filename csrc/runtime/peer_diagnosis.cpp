// What runs now, for people: operations in flight, and how far each has come on each of its links. Looked at
// on the I/O thread.
#include <sys/ioctl.h>

#include <algorithm>

#include "runtime/peer_runtime.hpp"

namespace pccl {

namespace {
// Given to the kernel, and not confirmed by the other end's.
std::uint64_t under_way(const net::Connection& stripe) {
  int bytes = 0;
  return ::ioctl(stripe.socket().fd(), TIOCOUTQ, &bytes) == 0 && bytes > 0 ? std::uint64_t(bytes) : 0;
}
// Come, and not read by us.
std::uint64_t unread(const net::Connection& stripe) {
  int bytes = 0;
  return ::ioctl(stripe.socket().fd(), FIONREAD, &bytes) == 0 && bytes > 0 ? std::uint64_t(bytes) : 0;
}

std::uint32_t in_ms(Duration time) {
  return std::uint32_t(std::clamp<Duration>(time / millisecond, 0, LinkState::not_yet - 1));
}
}  // namespace

std::optional<Diagnosis> PeerRuntime::diagnose(Duration timeout) {
  auto asked = std::make_shared<Promise<Diagnosis>>();
  hub_->call([this, asked] { asked->set(diagnosis()); });
  if (!asked->wait_for(timeout)) return std::nullopt;
  return asked->get();
}

Diagnosis PeerRuntime::diagnosis() {
  Diagnosis found;
  found.now = monotonic_now();
  if (session_ == nullptr) return found;
  found.peer = session_->peer();
  found.view = session_->view().id;
  found.master = !ended_ && !master_.obstacle();
  found.at_boundary = session_->at_boundary();
  std::vector<const Operation*> open;
  for (const auto& [key, operation] : session_->operations()) open.push_back(&operation);
  std::ranges::sort(open, {}, &Operation::posted_order);
  for (const auto* operation : open) found.operations.push_back(operation_now(*operation, found.now));
  return found;
}

// Once for each operation that takes long though all have come to it: the link that this peer waits for. Who
// only waits for data says nothing: whoever is behind may be waiting, too.
void PeerRuntime::tell_slow(Instant now) {
  constexpr Duration long_time = 2 * second, stalled = 1 * second;
  for (auto& [key, running] : running_) {
    const auto* operation = session_->find(key);
    if (running.slow_told || operation == nullptr || now - running.started < long_time) continue;
    if (operation->state != OperationState::running || !operation->missing.empty()) continue;
    for (const auto& link : operation_now(*operation, now).links) {
      const bool pending = link.to_send || link.queued != 0 || link.offered != 0;
      const auto quiet = link.flow.last_sent == 0 ? 0 : now - link.flow.last_sent;
      if (!pending || std::max(link.full, quiet) < stalled) continue;
      running.slow_told = true;
      log("waiting in " + std::string(name(running.call)) + ", " + describe(key) + " since " +
          in_words((now - running.started) / second * second) + " for peer " +
          std::to_string(link.flow.peer) + ": it, or the way to it, takes data slowly (" +
          std::to_string(link.flow.sent) + " bytes sent to it, and more waits)");
      break;
    }
  }
}

OperationNow PeerRuntime::operation_now(const Operation& operation, Instant now) {
  OperationNow one;
  one.key = operation.key;
  one.call = operation.descriptor.call;
  one.state = operation.state;
  one.age = now - operation.posted_at;
  one.attempts = operation.attempts;
  one.missing = operation.missing;
  one.hindrances = operation.hindrances;
  const auto it = running_.find(operation.key);
  if (it == running_.end()) return one;
  auto& running = it->second;
  one.bytes = running.bytes;
  one.sent = running.sent;
  one.received = running.received;
  const auto* attempt = exchange_->find(operation.key);
  auto flows = running.flows;  // and those over which nothing has come or gone yet
  if (attempt != nullptr && attempt->executor != nullptr)
    for (const auto& positions : {attempt->executor->sources(), attempt->executor->targets()})
      for (const auto position : positions) flows.at(attempt->ring.at(position));
  for (const auto& flow : flows.all())
    if (one.links.size() < limits::peers_named_max) one.links.push_back(link_now(flow, attempt, now));
  return one;
}

LinkNow PeerRuntime::link_now(const Flow& flow, const Exchange::Attempt* attempt, Instant now) {
  LinkNow link;
  link.flow = flow;
  if (attempt != nullptr && attempt->executor != nullptr) {
    const auto position = attempt->position_of(flow.peer);
    const auto sources = attempt->executor->sources();
    link.source = std::ranges::find(sources, position) != sources.end();
    link.ready = attempt->heard.contains(position) || flow.received != 0;
  }
  links_.each_stripe([&](PeerId to, net::Connection& stripe) {
    if (to != flow.peer) return;
    link.queued += stripe.queued_bytes() + under_way(stripe);
    link.unread += unread(stripe);
  });
  if (const auto it = offered_.find(flow.peer); it != offered_.end()) link.offered = it->second;
  if (const auto it = full_.find(flow.peer); it != full_.end()) {
    link.to_send = it->second.is_full();
    link.full = flow.first_sent == 0 ? it->second.now_for(now) : it->second.total(now) - flow.full_before;
  }
  return link;
}

// For the master, which compares what all peers say of theirs.
std::vector<LinkState> PeerRuntime::link_states(const OpKey& key) {
  std::vector<LinkState> states;
  const auto* operation = session_->find(key);
  if (operation == nullptr) return states;
  const auto now = monotonic_now();
  const auto ago = [&](Instant at) { return at == 0 ? LinkState::not_yet : in_ms(now - at); };
  for (const auto& link : operation_now(*operation, now).links)
    states.push_back({key, link.flow.peer, link.ready, link.source, link.to_send, link.flow.sent,
                      link.flow.received, link.queued, link.unread, std::uint32_t(link.offered),
                      in_ms(link.full), ago(link.flow.last_sent), ago(link.flow.last_received)});
  return states;
}

}  // namespace pccl
