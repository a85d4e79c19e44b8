// Who keeps whom waiting: the master asks all whom an operation concerns, compares, and tells those who wait.
// By policy, whoever alone keeps all others waiting goes.
#include <algorithm>

#include "protocol/hindrances.hpp"
#include "protocol/master.hpp"

namespace pccl {

namespace {
// Operations that are looked at closely at a time: the others wait for the same peers, as a rule.
constexpr std::size_t compared_max = 8;
}  // namespace

std::vector<Hindrance> Master::hindrances(const OpKey& key, const OpenOperation& operation,
                                          Instant now) const {
  std::vector<Witness> all;
  for (const auto peer : index_.concerned(key)) {
    const auto& state = peers_.at(peer);
    Witness witness{.peer = peer, .silent = now - state.heard};
    witness.done = operation.done.has(peer);
    witness.came = witness.done || (operation.absent && !operation.absent->contains(peer));
    if (state.boundary) witness.elsewhere = Call::update_topology;
    if (state.waiting) {
      for (const auto& call : state.waiting->calls)
        if (!witness.elsewhere && call.key != key) witness.elsewhere = call.call;
      for (const auto& link : state.waiting->links)
        if (link.key == key) witness.links.push_back(link);
    }
    all.push_back(std::move(witness));
  }
  return find_hindrances(all, std::max(second, 5 * timing_.heartbeat / 2));
}

// Those who wait as long as the first one who asks are not missing: their own question is on its way.
void Master::answer_askers(Instant now) {
  std::size_t compared = 0;
  for (auto& [key, operation] : operations_) {
    if (now < operation.answer_at) continue;
    operation.answer_at = never;
    const auto askers = std::exchange(operation.askers, {});
    if (!operation.absent) continue;
    const auto& absent = *operation.absent;
    const auto named = std::min(absent.size(), limits::peers_named_max);
    Missing missing{key, operation.called->second, {}, {}};
    missing.peers.assign(absent.begin(), std::next(absent.begin(), std::ptrdiff_t(named)));
    if (compared++ < compared_max) missing.hindrances = hindrances(key, operation, now);
    if (missing.hindrances.size() > limits::peers_named_max)
      missing.hindrances.resize(limits::peers_named_max);
    if (missing.peers.empty() && missing.hindrances.empty() && operation.hindrances.empty()) continue;
    note_hindrances(key, operation, missing.hindrances);
    for (const auto peer : askers) send(peer, missing);
  }
}

// One line when it changes.
void Master::note_hindrances(const OpKey& key, OpenOperation& operation, std::vector<Hindrance> found) {
  const bool news = !found.empty() && !alike(found, operation.hindrances);
  operation.hindrances = std::move(found);
  if (!news) return;
  std::vector<std::string> who;
  for (const auto& h : operation.hindrances)
    who.push_back("peer " + std::to_string(h.peer) + " (" + in_words(h) + ")");
  emit(master_effect::Notice{std::string(name(operation.called->second)) + ", " + describe(key) +
                             " waits for " + some_of(who)});
}

// A minority only: where most are late it is the others who are early. And no end of a slow way: who is at
// its other end is as slow.
void Master::judge_stragglers(Instant now) {
  if (timing_.straggler == 0) return;
  for (auto& [key, operation] : operations_) {
    if (operation.asked_since == never || now - operation.asked_since < timing_.straggler) continue;
    operation.asked_since = now;  // looked at again after as long
    std::set<std::string> islands;
    std::string why;
    std::size_t blamed = 0;
    for (const auto& h : hindrances(key, operation, now)) {
      if (h.trouble == Trouble::elsewhere || h.trouble == Trouble::slow_way) continue;
      islands.insert(index_.find(h.peer)->island);
      if (blamed++ < limits::names_told_max)
        why += "peer " + std::to_string(h.peer) + " kept " + describe(key) + " waiting for " +
               in_words(timing_.straggler) + " (straggler_ms): " + in_words(h) + "; ";
    }
    if (blamed == 0 || 2 * blamed >= operation.voters) continue;
    why.resize(why.size() - 2);
    return lose(islands, why, RecentFailure::Kind::evicted, now);  // and the operations of this view with it
  }
}

}  // namespace pccl
