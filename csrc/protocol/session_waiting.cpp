// What a session says of the calls that wait, and what the master answers: who is missing, who is slow.
#include <algorithm>

#include "protocol/hindrances.hpp"
#include "protocol/session.hpp"

namespace pccl {

// Well before a short time-out: when it ends, the master can name those that all others waited for.
Instant Session::notice_at(const Operation& operation, Instant now) const {
  return now + std::min(timing_.waiting_notice, (operation.deadline - now) / 2);
}

void Session::send_waiting(Instant now) {
  Waiting waiting{view_.id, stuck_, boundary_.number != 0, {}, {}};
  for (auto* operation : in_posted_order()) {
    waiting.calls.push_back({operation->key, operation->descriptor.call,
                             operation->state == OperationState::held, operation->moved});
    // A call that is about to give up lets its caller go on: whoever waits elsewhere may meet it yet.
    waiting.stuck &= operation->deadline - now >= timing_.waiting_notice;
    if (!link_states_ || waiting.links.size() >= limits::peers_named_max) continue;
    auto links = link_states_(operation->key);
    links.resize(std::min(links.size(), limits::peers_named_max - waiting.links.size()));
    waiting.links.insert(waiting.links.end(), links.begin(), links.end());
  }
  waiting_said_at_ = now;
  to_master(std::move(waiting));
}

// With the next heartbeat.
void Session::show(std::vector<Figure> figures) {
  if (figures == figures_) return;
  figures_ = std::move(figures);
  figures_told_ = false;
}

std::string Session::with_islands(const std::vector<PeerId>& peers) const {
  std::string who;
  for (const auto peer : peers) {
    const auto* member = view_.find(peer);
    who += (who.empty() ? "" : ", ") + ("peer " + std::to_string(peer)) +
           (member ? " (island " + member->island + ")" : "");
  }
  return who;
}

// Who is waited for, and why: once where it is the same for all.
std::string Session::whom(const Missing& m) const {
  auto peers = m.peers;
  for (const auto& h : m.hindrances)
    if (m.peers.empty() && std::ranges::find(peers, h.peer) == peers.end()) peers.push_back(h.peer);
  auto text = with_islands(peers);
  const auto& all = m.hindrances;
  if (all.empty()) return text;
  const auto same = [&](const Hindrance& h) { return in_words(h) == in_words(all.front()); };
  if (all.size() == peers.size() && std::ranges::all_of(all, same))
    return text + ": " + in_words(all.front());
  for (std::size_t i = 0; i < std::min(all.size(), limits::names_told_max); ++i)
    text += "; peer " + std::to_string(all[i].peer) + ": " + in_words(all[i]);
  return text;
}

void Session::on(const Missing& m, Instant) {
  if (m.call == Call::update_topology) {
    if (m.peers.empty() || boundary_.number == 0) return;
    if (std::exchange(boundary_.missing, m.peers) == m.peers) return;
    return emit(effect::Notice{"waiting in update_topology for " + with_islands(m.peers)});
  }
  const auto it = operations_.find(m.key);
  if (it == operations_.end()) return;
  auto& operation = it->second;
  const bool known = operation.missing == m.peers && alike(operation.hindrances, m.hindrances);
  operation.missing = m.peers;
  operation.hindrances = m.hindrances;
  if (known || (m.peers.empty() && m.hindrances.empty())) return;
  emit(effect::Notice{"waiting in " + call_text(operation) + " for " + whom(m)});
}

}  // namespace pccl
