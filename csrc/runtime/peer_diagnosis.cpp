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

// Its READY, or data of it, has come here: only neighbours in the plan tell.
bool PeerRuntime::has_come(const Operation& operation, PeerId peer) const {
  const auto* attempt = exchange_->find(operation.key);
  if (attempt == nullptr || attempt->executor == nullptr) return false;
  if (attempt->heard.contains(attempt->position_of(peer))) return true;
  const auto it = running_.find(operation.key);
  return it != running_.end() && std::ranges::any_of(it->second.flows.all(), [&](const Flow& flow) {
           return flow.peer == peer && flow.received != 0;
         });
}

// Behind the line that says who is missing: those who have come to the call, and yet do not say so to the
// master, are stopped; the others are late.
std::string PeerRuntime::why_missing(const std::string& line) const {
  for (const auto& [key, operation] : session_->operations()) {
    const auto call = std::string(name(operation.descriptor.call)) + ", " + describe(key) + " for ";
    if (operation.missing.empty() || !line.starts_with("waiting in " + call)) continue;
    const auto come =
        std::ranges::count_if(operation.missing, [&](PeerId peer) { return has_come(operation, peer); });
    if (come == 0) return ": late to post, not come to the call yet";
    return std::size_t(come) == operation.missing.size()
               ? ": silent, had come to the call and is stopped or cut off"
               : ": some late to post, some stopped or cut off";
  }
  return {};
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
  if (attempt != nullptr && attempt->executor != nullptr)
    link.ready = attempt->heard.contains(attempt->position_of(flow.peer)) || flow.received != 0;
  links_.each_stripe([&](PeerId to, net::Connection& stripe) {
    if (to == flow.peer) link.queued += stripe.queued_bytes() + under_way(stripe);
  });
  if (const auto it = offered_.find(flow.peer); it != offered_.end()) link.offered = it->second;
  if (const auto it = full_.find(flow.peer); it != full_.end()) {
    link.to_send = it->second.is_full();
    link.full = it->second.total(now) - flow.full_before;
  }
  return link;
}

}  // namespace pccl
