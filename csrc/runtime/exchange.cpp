#include "runtime/exchange.hpp"

#include <algorithm>

#include "runtime/describe.hpp"
#include "runtime/plan_choice.hpp"
#include "wire/codec.hpp"

namespace pccl {

std::uint32_t Exchange::Attempt::position_of(PeerId peer) const {
  return std::uint32_t(std::find(ring.begin(), ring.end(), peer) - ring.begin());
}

const Exchange::Attempt* Exchange::find(const OpKey& key) const {
  const auto it = attempts_.find(key);
  return it == attempts_.end() ? nullptr : &it->second;
}

// A receiver that is behind parks what comes: few and small things.
bool Exchange::may_be_eager(const Descriptor& d) const {
  std::size_t unacknowledged = 0;
  for (const auto& [key, other] : attempts_) unacknowledged += other.complete_said ? 0 : 1;
  return total_bytes(d) <= limits_.eager_bytes && unacknowledged < limits_.eager_operations;
}

// One operation at a time: what the receiver parks of it stays far below what it may.
void Exchange::give_head_starts(Attempt& attempt) const {
  if (!distant_) return;
  for (const auto& [key, other] : attempts_)
    if (other.head_start && !other.complete_said) return;
  for (std::uint32_t position = 0; position < attempt.ring.size(); ++position) {
    if (!distant_(attempt.ring[position])) continue;
    attempt.executor->give_head_start(position, limits_.head_start_bytes);
    attempt.head_start = true;
  }
}

// By position: the two of a pair; blocks are by rank; all else goes round the ring or is indifferent.
std::vector<PeerId> Exchange::peers_of(const Operation& operation) const {
  if (operation.key.scope == Scope::pair) return {operation.key.from, operation.key.to};
  return in_blocks(operation.descriptor.call) ? session_.view().group_members(session_.identity().group)
                                              : session_.ring();
}

Standing Exchange::standing_of(const Attempt& attempt, bool in_place, const CodedSums* sums) const {
  // What is read where it lies needs no slot to leave from.
  const bool readers = std::all_of(attempt.ring.begin(), attempt.ring.end(), [&](PeerId peer) {
    return peer == session_.peer() || readers_.contains(peer);
  });
  Standing standing{attempt.position,
                    std::uint32_t(attempt.ring.size()),
                    attempt.position_of(attempt.descriptor.root),
                    in_place,
                    may_be_eager(attempt.descriptor),
                    readers ? limits_.slots_of_readers : limits_.slots,
                    limits_.own_bytes};
  if (attempt.descriptor.algorithm == Algorithm::two_level)
    standing.hosts = hosts_of(session_.view(), attempt.ring);
  standing.sums = sums;
  return standing;
}

void Exchange::set_reader(PeerId peer, bool reads) {
  if (reads)
    readers_.insert(peer);
  else
    readers_.erase(peer);
}

void Exchange::begin(const OpKey& key, bool in_place, const CodedSums* sums, bool limited) {
  const auto* operation = session_.find(key);
  if (operation == nullptr) return;
  Attempt attempt;
  attempt.id = next_attempt_++;
  attempt.key = key;
  attempt.view = session_.view().id;
  attempt.ring = peers_of(*operation);
  attempt.position = attempt.position_of(session_.peer());
  attempt.order = operation->posted_order;
  attempt.descriptor = plan_descriptor(operation->descriptor, session_.view().hints,
                                       {session_.identity().group, std::uint32_t(attempt.ring.size()),
                                        in_one_place(session_.view(), attempt.ring)});
  attempt.fingerprint = std::uint32_t(wire::fingerprint(attempt.descriptor));
  attempt.executor = make_executor(attempt.descriptor, standing_of(attempt, in_place, sums));
  if (attempt.executor != nullptr && !may_be_eager(attempt.descriptor)) give_head_starts(attempt);
  attempt.bulk = total_bytes(attempt.descriptor) > limits::bulk_bytes;
  if (limited) attempt.allowance = 0;
  by_order_[attempt.order] = key;
  auto& started = attempts_[key] = std::move(attempt);
  if (started.executor == nullptr) return;
  const bool more = started.executor->start(work_);
  do_all(started, work_);
  if (more) emit(exchange_effect::More{started.id, key});
  const auto& d = started.descriptor;
  if (started.ring.size() > 1 && moves_data(d))
    for (const auto source : sources_of(started))
      if (session_.link_up(source)) send_ready(started, source);
  for (const auto peer : started.ring)
    if (const auto parked = ready_parked_.find({peer, key});
        parked != ready_parked_.end() && parked->second.ready.view == started.view) {
      const auto theirs = std::move(parked->second.ready.descriptor);
      ready_parked_.erase(parked);
      use_ready(started, peer, theirs);
    }
  settle(started);
  replay_parked();
}

// Who sends to this peer, and waits for its READY: also the peer before it in a ring that the plan leaves
// out, as in a broadcast, so that everybody hears whether all do the same.
std::vector<PeerId> Exchange::sources_of(const Attempt& attempt) const {
  std::vector<PeerId> sources;
  for (const auto position : attempt.executor->sources()) sources.push_back(attempt.ring[position]);
  const auto before = attempt.ring[(attempt.position + attempt.ring.size() - 1) % attempt.ring.size()];
  if (std::find(sources.begin(), sources.end(), before) == sources.end()) sources.push_back(before);
  return sources;
}

void Exchange::send_ready(const Attempt& attempt, PeerId to) {
  emit(exchange_effect::SendReady{to, {attempt.view, attempt.key, attempt.descriptor}});
}

void Exchange::do_all(const Attempt& attempt, std::vector<Work>& work) {
  for (const auto& item : work) emit(exchange_effect::Do{attempt.id, attempt.key, item});
  work.clear();
}

// After anything moved: tell the links that have something to send, and the session when all is there.
void Exchange::settle(Attempt& attempt) {
  for (const auto position : attempt.executor->targets())
    if (attempt.executor->sendable(position)) emit(exchange_effect::Wake{attempt.ring[position]});
  if (attempt.complete_said || !attempt.executor->complete()) return;
  // Who only sends (two peers that both believe to be the root) would be done before it sees that others do
  // otherwise.
  for (const auto position : attempt.executor->targets())
    if (!attempt.heard.contains(position)) return;
  attempt.complete_said = true;
  emit(exchange_effect::Complete{attempt.id, attempt.key});
}

void Exchange::go_on(const OpKey& key, AttemptId attempt) {
  if (!current(key, attempt)) return;
  auto& found = attempts_.at(key);
  const bool more = found.executor->copy_own(work_);
  do_all(found, work_);
  if (more) emit(exchange_effect::More{attempt, key});
  settle(found);
}

void Exchange::drop(const OpKey& key) {
  const auto it = attempts_.find(key);
  if (it == attempts_.end()) return;
  by_order_.erase(it->second.order);
  attempts_.erase(it);
}

void Exchange::failed_early(const OpKey& key) {
  std::erase_if(ready_parked_, [&](const auto& entry) { return entry.first.second == key; });
  replay_parked();
}

// Frames and READYs of older views are of no use any more; those of this view may find their attempt now.
void Exchange::view_changed() {
  std::erase_if(ready_parked_, [&](const auto& entry) {
    return entry.second.ready.view < session_.view().id || departed(entry.first.first);
  });
  replay_parked();
}

void Exchange::on_link_up(PeerId peer) {
  for (auto& [key, attempt] : attempts_) {
    if (attempt.executor == nullptr || attempt.ring.size() < 2 || !moves_data(attempt.descriptor)) continue;
    const auto sources = sources_of(attempt);
    if (std::find(sources.begin(), sources.end(), peer) != sources.end()) send_ready(attempt, peer);
  }
  emit(exchange_effect::Wake{peer});
}

bool Exchange::on_ready(PeerId from, const Ready& ready) {
  const auto& current = session_.view().id;
  if (ready.view < current && rules_.drop_older_views) return true;
  const auto it = attempts_.find(ready.key);
  if (ready.view <= current && it != attempts_.end()) {
    use_ready(it->second, from, ready.descriptor);
    return true;
  }
  if (ready.view == current && (session_.decided(ready.key) || session_.find(ready.key) != nullptr))
    return true;
  if (!rules_.park_newer) return true;
  if (!may_park_ready(from, ready)) return false;
  ready_parked_[{from, ready.key}] = {ready, ++readies_parked_};
  return true;
}

std::optional<PeerId> Exchange::announced(std::uint32_t name, PeerId only) const {
  std::optional<PeerId> first;
  auto order = ~std::uint64_t{0};
  for (const auto& [of, parked] : ready_parked_) {
    const auto& [from, key] = of;
    if (only != no_peer && from != only) continue;
    if (key.scope != Scope::pair || key.to != session_.peer() || key.from != from || key.tag.name != name ||
        parked.ready.view != session_.view().id || parked.order > order)
      continue;
    order = parked.order;
    first = from;
  }
  return first;
}

void Exchange::use_ready(Attempt& attempt, PeerId from, const Descriptor& theirs) {
  const auto position = attempt.position_of(from);
  if (attempt.executor == nullptr || position >= attempt.ring.size()) return;
  if (theirs != attempt.descriptor) {
    emit(exchange_effect::Mismatch{attempt.id, attempt.key,
                                   "peer " + std::to_string(session_.peer()) + " calls " +
                                       describe(attempt.descriptor) + ", peer " + std::to_string(from) +
                                       " calls " + describe(theirs) + " as " + describe(attempt.key) +
                                       hidden_difference(attempt.descriptor, theirs)});
    return;
  }
  attempt.heard.insert(position);
  attempt.executor->on_ready(position);
  settle(attempt);
}

Landing Exchange::land(PeerId from, const wire::DataHeader& header) {
  constexpr Landing park{Landing::Kind::park, false};
  const auto& current = session_.view().id;
  if (header.view < current && rules_.drop_older_views) return {};
  if (overtaken(from, header.view)) return {};
  if (header.view > current) return rules_.park_newer ? park : Landing{};
  const auto it = attempts_.find(header.key);
  if (it == attempts_.end()) {
    if (session_.decided(header.key) || session_.find(header.key) != nullptr) return {};
    return rules_.park_newer ? park : Landing{};
  }
  auto& attempt = it->second;
  const auto position = attempt.position_of(from);
  if (attempt.executor == nullptr || position >= attempt.ring.size() ||
      header.fingerprint != attempt.fingerprint)
    return {};
  return attempt.executor->land(position, header.step, header.chunk, header.bytes);
}

void Exchange::arrived(const wire::DataHeader& header, SlotId slot) {
  const auto it = attempts_.find(header.key);
  if (it == attempts_.end() || it->second.executor == nullptr) return;
  it->second.executor->arrived(header.step, header.chunk, slot, work_);
  do_all(it->second, work_);
  settle(it->second);
}

void Exchange::unland(const wire::DataHeader& header, AttemptId attempt) {
  if (current(header.key, attempt)) attempts_.at(header.key).executor->unland(header.step, header.chunk);
}

bool Exchange::sendable(PeerId peer) const {
  return std::any_of(attempts_.begin(), attempts_.end(), [&](const auto& entry) {
    const auto position = entry.second.position_of(peer);
    return position < entry.second.ring.size() && may_send(entry.second, position);
  });
}

bool Exchange::may_send(const Attempt& attempt, std::uint32_t position) {
  return attempt.executor != nullptr && (!attempt.allowance || *attempt.allowance > 0) &&
         attempt.executor->sendable(position);
}

// The last chunk may take more than there is: what comes next pays for it.
void Exchange::allow(const OpKey& key, std::int64_t bytes, std::int64_t most) {
  const auto it = attempts_.find(key);
  if (it == attempts_.end() || !it->second.allowance) return;
  auto& allowance = *it->second.allowance;
  allowance = std::min(allowance + bytes, most);
  if (allowance > 0 && it->second.executor != nullptr) settle(it->second);
}

bool Exchange::bulk(PeerId peer) const {
  return std::any_of(attempts_.begin(), attempts_.end(), [&](const auto& entry) {
    return entry.second.bulk && entry.second.position_of(peer) < entry.second.ring.size();
  });
}

// The oldest operation first: all peers post in about the same order, so links work on the same one.
std::optional<Outgoing> Exchange::next(PeerId peer) {
  for (const auto& [order, key] : by_order_) {
    auto& attempt = attempts_.at(key);
    const auto position = attempt.position_of(peer);
    if (position >= attempt.ring.size() || !may_send(attempt, position)) continue;
    const auto send = attempt.executor->next(position);
    if (!send) continue;
    if (attempt.allowance) *attempt.allowance -= send->bytes;
    wire::DataHeader header{attempt.view, key, attempt.fingerprint, send->step, 0, send->chunk,
                            send->bytes,  0};
    return Outgoing{attempt.id, key, header, *send};
  }
  return std::nullopt;
}

bool Exchange::sent(const Outgoing& outgoing) {
  const auto it = attempts_.find(outgoing.key);
  if (it == attempts_.end() || it->second.id != outgoing.attempt) return false;
  const bool free = it->second.executor->sent(outgoing.send, work_);
  if (work_.empty()) return free;
  do_all(it->second, work_);
  settle(it->second);
  return free;
}

bool Exchange::take_effects(std::vector<ExchangeEffect>& into) {
  into.clear();
  std::swap(into, effects_);
  return !into.empty();
}

}  // namespace pccl
