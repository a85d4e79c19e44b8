#include "sim/links.hpp"

#include <algorithm>

#include "sim/process.hpp"
#include "sim/shared_state.hpp"
#include "sim/world.hpp"

namespace pccl::sim {

// ---- dialling ----

void Links::dial(Process& from, PeerId to, const std::vector<Address>& addresses) {
  if (from.links.contains(to) || from.dialling.contains(to)) return;
  const auto serial = from.dialling[to] = ++from.dials;
  const auto address = addresses.empty() ? 0u : addresses.front().port;
  auto* process = &from;
  world_.for_process(from, world_.data_delay(from),
                     [this, process, to, address, serial] { arrive_dial(*process, to, address, serial); });
}

void Links::arrive_dial(Process& from, PeerId to, std::uint32_t address, std::uint64_t serial) {
  const auto dialling = from.dialling.find(to);
  if (!from.alive || dialling == from.dialling.end() || dialling->second != serial) return;
  auto* target = world_.process_at(address);
  if (target == nullptr) return fail_dial(from, to, serial, true, "refused", 0);
  if (target->silent || !from.reaches_others || !target->reaches_others)
    return fail_dial(from, to, serial, false, "timed out", 500 * millisecond);
  if (!target->alive) return fail_dial(from, to, serial, true, "refused", 0);
  if (target->session.peer() != to || target->session.run() != from.session.run())
    return fail_dial(from, to, serial, false, "somebody else answers there", world_.data_delay(from));
  // Both ends dial at once: the larger id's dial wins.
  if (target->dialling.contains(from.session.peer()) && to > from.session.peer())
    return fail_dial(from, to, serial, false, "the other end dials too", world_.data_delay(from));
  establish(from, *target);
}

void Links::fail_dial(Process& from, PeerId to, std::uint64_t serial, bool refused, const char* why,
                      Duration after) {
  auto* process = &from;
  world_.for_process(from, after, [process, to, serial, refused, why] {
    const auto it = process->dialling.find(to);
    if (!process->alive || it == process->dialling.end() || it->second != serial) return;
    process->dialling.erase(it);
    process->session.on_dial_failed(to, refused, why, process->now());
    process->drain();
  });
}

void Links::establish(Process& from, Process& to) {
  const auto index = LinkIndex(links_.size());
  links_.push_back(std::make_unique<Link>());
  auto& link = *links_.back();
  link.ends[0].process = &from;
  link.ends[1].process = &to;
  const auto back = world_.data_delay(from);
  for (auto& busy : link.ends[1].busy_until) busy = world_.now() + back;
  to.dialling.erase(from.session.peer());
  world_.for_process(from, back, [this, index] { raise(index, 0); });
  raise(index, 1);
}

void Links::raise(LinkIndex index, std::uint16_t side) {
  auto& end = links_[index]->ends[side];
  auto& process = *end.process;
  const auto peer = links_[index]->ends[1u - side].process->session.peer();
  const auto own_dial = process.dialling.find(peer);
  if (!process.alive || end.state != LinkEnd::State::coming ||
      (side == 0 && own_dial == process.dialling.end())) {
    end.state = LinkEnd::State::closed;
    return lose(index, true, true);
  }
  if (own_dial != process.dialling.end()) process.dialling.erase(own_dial);
  if (const auto old = process.links.find(peer); old != process.links.end()) {
    auto& replaced = *links_[old->second];
    replaced.ends[replaced.side_of(&process)].state = LinkEnd::State::closed;
    lose(old->second, true, true);
  }
  end.state = LinkEnd::State::up;
  process.links[peer] = index;
  process.session.on_link_up(peer, process.now());
  process.exchange.on_link_up(peer);
  process.states.on_link_up(peer);
  process.drain();
}

// ---- loss ----

// Some of what is on its way still arrives, the rest never.
void Links::cut(Link& link) {
  if (std::exchange(link.broken, true)) return;
  for (auto& end : link.ends)
    for (auto& flying : end.flying) flying.resize(world_.rng.below(flying.size() + 1));
}

void Links::lose(LinkIndex index, bool first_learns, bool second_learns) {
  cut(*links_[index]);
  const bool learns[] = {first_learns, second_learns};
  for (std::uint16_t side = 0; side < 2; ++side) {
    auto& end = links_[index]->ends[side];
    // An end that is still opening the link always learns: its handshake has a time-out.
    if (end.state == LinkEnd::State::closed || (!learns[side] && end.state != LinkEnd::State::coming))
      continue;
    auto at = world_.now() + world_.data_delay(*end.process);
    for (const auto busy : links_[index]->ends[1u - side].busy_until) at = std::max(at, busy);
    world_.for_process(*end.process, at - world_.now(),
                       [this, index, side] { learn(index, side, "connection reset"); });
  }
}

void Links::learn(LinkIndex index, std::uint16_t side, const char* why) {
  auto& end = links_[index]->ends[side];
  auto& process = *end.process;
  if (!process.alive || end.state == LinkEnd::State::closed) return;
  const auto peer = links_[index]->ends[1u - side].process->session.peer();
  const bool was_up = std::exchange(end.state, LinkEnd::State::closed) == LinkEnd::State::up;
  const auto it = process.links.find(peer);
  if (was_up && it != process.links.end() && it->second == index) {
    process.links.erase(it);
    process.session.on_link_down(peer, false, why, process.now());
    return process.drain();
  }
  if (was_up || side != 0 || process.dialling.erase(peer) == 0) return;
  process.session.on_dial_failed(peer, false, why, process.now());
  process.drain();
}

void Links::hang_up(Process& from, PeerId to) {
  from.dialling.erase(to);
  const auto it = from.links.find(to);
  if (it == from.links.end()) return;
  const auto index = it->second;
  from.links.erase(it);
  links_[index]->ends[links_[index]->side_of(&from)].state = LinkEnd::State::closed;
  lose(index, true, true);
}

void Links::process_ended(Process& process, bool silent) {
  for (LinkIndex index = 0; index < links_.size(); ++index) {
    auto& link = *links_[index];
    if (!link.joins(&process)) continue;
    link.ends[link.side_of(&process)].state = LinkEnd::State::closed;
    if (silent)
      cut(link);
    else
      lose(index, true, true);
  }
  process.links.clear();
  process.dialling.clear();
}

std::vector<LinkIndex> Links::up() const {
  std::vector<LinkIndex> all;
  for (LinkIndex index = 0; index < links_.size(); ++index)
    if (!links_[index]->broken) all.push_back(index);
  return all;
}

// ---- sending ----

void Links::send_ready(Process& from, PeerId to, const Ready& ready) {
  const auto it = from.links.find(to);
  if (it == from.links.end()) return;
  Flying flying;
  flying.ready = ready;
  fly({it->second, links_[it->second]->side_of(&from), 0}, std::move(flying));
}

void Links::pull(Process& from, PeerId to) {
  const auto it = from.links.find(to);
  if (it == from.links.end()) return;
  Lane lane{it->second, links_[it->second]->side_of(&from), 0};
  auto& outbox = sender(lane).outbox;
  while (true) {
    lane.stripe = std::uint16_t(world_.rng.below(stripes));
    if (outbox[lane.stripe].size() >= world_.scenario.frames_in_flight)
      lane.stripe = std::uint16_t(1 - lane.stripe);
    if (outbox[lane.stripe].size() >= world_.scenario.frames_in_flight) return;
    auto outgoing = from.exchange.next(to);
    if (!outgoing) return;
    outbox[lane.stripe].push_back(std::move(*outgoing));
    world_.for_process(from, world_.transmit_delay(), [this, lane] { transmit(lane); });
  }
}

void Links::transmit(Lane lane) {
  auto& end = sender(lane);
  auto& process = *end.process;
  if (!process.alive || end.state != LinkEnd::State::up || end.outbox[lane.stripe].empty()) return;
  const auto outgoing = std::move(end.outbox[lane.stripe].front());
  end.outbox[lane.stripe].pop_front();
  Flying flying;
  flying.header = outgoing.header;
  flying.content = process.data.read(outgoing);
  fly(lane, std::move(flying));
  process.data.sent(outgoing);
  process.drain();
  pull(process, receiver(lane).process->session.peer());
}

void Links::fly(Lane lane, Flying flying) {
  if (links_[lane.link]->broken) return;
  auto& end = sender(lane);
  auto& to = *receiver(lane).process;
  const auto arrival = std::max(world_.now() + world_.data_delay(to), end.busy_until[lane.stripe]);
  const bool split = !flying.ready && world_.scenario.split_frames;
  const auto over = arrival + (split ? world_.transmit_delay() : 0);
  end.busy_until[lane.stripe] = over;
  end.flying[lane.stripe].push_back(std::move(flying));
  if (split) world_.for_process(to, arrival - world_.now(), [this, lane] { begin(lane); });
  world_.for_process(to, over - world_.now(), [this, lane] { finish(lane); });
}

// The memory of this operation is not read again by a frame. What the dropped frames kept waiting may leave
// now.
void Links::detach(Process& from, const OpKey& key) {
  for (const auto& [peer, index] : from.links)
    for (auto& outbox : links_[index]->ends[links_[index]->side_of(&from)].outbox)
      if (std::erase_if(outbox, [&](const Outgoing& outgoing) { return outgoing.key == key; }) > 0)
        from.wake(peer);
}

// Whoever writes to a connection that has broken hears of it, unless the other host is silent.
void Links::ask(Fetch fetch) {
  const auto side = links_[fetch.link]->side_of(fetch.fetcher);
  fetch.donor = links_[fetch.link]->ends[1u - side].process;
  world_.for_process(*fetch.donor, world_.data_delay(*fetch.donor), [this, fetch, side] {
    if (links_[fetch.link]->broken) {
      if (fetch.donor->silent) return;
      return world_.for_process(*fetch.fetcher, world_.data_delay(*fetch.fetcher),
                                [this, fetch, side] { learn(fetch.link, side, "connection reset"); });
    }
    if (!fetch.donor->alive || !fetch.donor->states.serve(fetch)) return;
    world_.for_process(*fetch.fetcher, world_.data_delay(*fetch.fetcher) + world_.transfer_time(),
                       [this, fetch] { bring(fetch); });
  });
}

void Links::bring(const Fetch& fetch) {
  const auto it = fetch.fetcher->links.find(fetch.donor->session.peer());
  if (links_[fetch.link]->broken || !fetch.fetcher->alive || it == fetch.fetcher->links.end() ||
      it->second != fetch.link)
    return;
  fetch.fetcher->states.landed(fetch);
  fetch.fetcher->drain();
}

// ---- receiving ----

bool Links::heard(Lane lane) const {
  const auto& to = links_[lane.link]->ends[1u - lane.side];
  if (!to.process->alive || to.state != LinkEnd::State::up) return false;
  const auto it = to.process->links.find(links_[lane.link]->ends[lane.side].process->session.peer());
  return it != to.process->links.end() && it->second == lane.link;
}

void Links::begin(Lane lane) {
  auto& flying = sender(lane).flying[lane.stripe];
  if (flying.empty() || !heard(lane)) return;
  flying.front().begun = true;
  const auto from = sender(lane).process->session.peer();
  receiver(lane).incoming[lane.stripe] = receiver(lane).process->data.land(from, flying.front().header);
}

void Links::finish(Lane lane) {
  auto& queue = sender(lane).flying[lane.stripe];
  if (queue.empty()) return;
  if (!queue.front().ready && !queue.front().begun) begin(lane);
  auto flying = std::move(queue.front());
  queue.pop_front();
  auto& end = receiver(lane);
  const auto incoming = std::exchange(end.incoming[lane.stripe], std::nullopt);
  if (!heard(lane)) return;
  const auto from = sender(lane).process->session.peer();
  if (world_.tracing(2)) note(lane, flying, incoming);
  if (flying.ready)
    end.process->exchange.on_ready(from, *flying.ready);
  else if (incoming)
    end.process->data.landed(from, *incoming, std::move(flying.content));
  end.process->drain();
}

void Links::note(Lane lane, const Flying& flying, const std::optional<Incoming>& incoming) {
  const auto& end = receiver(lane);
  constexpr const char* landings[] = {"is dropped", "is parked", "goes to a slot", "goes to the output",
                                      "is a signal"};
  const auto what = flying.ready
                        ? "READY " + pccl::describe(flying.ready->key)
                        : "chunk " + std::to_string(flying.header.chunk) + " step " +
                              std::to_string(flying.header.step) + " of " +
                              pccl::describe(flying.header.key) + " in view " + text(flying.header.view);
  world_.note("    " + sender(lane).process->name() + " -> " + end.process->name() + ": " + what + " " +
              (flying.ready ? "" : landings[incoming ? std::size_t(incoming->landing.kind) : 0]));
}

// A payload that is arriving for this operation goes nowhere from here on.
void Links::forget_incoming(Process& at, const OpKey& key) {
  for (const auto& [peer, index] : at.links)
    for (auto& incoming : links_[index]->ends[links_[index]->side_of(&at)].incoming)
      if (incoming && incoming->landing.kind != Landing::Kind::park && incoming->header.key == key)
        incoming.reset();
}

}  // namespace pccl::sim
