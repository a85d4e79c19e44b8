#include "sim/data_plane.hpp"

#include "sim/process.hpp"
#include "sim/world.hpp"

namespace pccl::sim {

Memory* DataPlane::memory(const OpKey& key) {
  const auto it = memories_.find(key);
  return it == memories_.end() ? nullptr : &it->second;
}

void DataPlane::begin(const OpKey& key) {
  const auto* attempt = process_.exchange.find(key);
  if (auto* m = memory(key); m != nullptr && attempt != nullptr)
    m->begin(std::uint32_t(attempt->ring.size()));
}

void DataPlane::stop_using(const OpKey& key) {
  process_.world().links.detach(process_, key);
  process_.world().links.forget_incoming(process_, key);
  if (const auto* attempt = process_.exchange.find(key))
    std::erase_if(slots_, [&](const auto& entry) { return entry.second.attempt == attempt->id; });
}

// ---- arithmetic ----

void DataPlane::run(const exchange_effect::Do& effect) {
  const auto* attempt = process_.exchange.find(effect.key);
  auto* m = memory(effect.key);
  if (attempt == nullptr || attempt->id != effect.attempt || m == nullptr) return;
  const auto& work = effect.work;
  const auto& layout = attempt->executor->layout();
  auto result = m->input(layout, work.chunk);
  if (work.merge == Merge::fold) result = fold(work, result);
  if (work.merge == Merge::reduce || work.merge == Merge::replace) {
    const auto slot = slots_.find(work.slot);
    if (slot == slots_.end()) return process_.world().violated("work in a slot that is free");
    result = work.merge == Merge::replace ? slot->second.content : add(slot->second.content, result);
    if (work.to_slot) slot->second.content = result;
    if (work.free_slot) slots_.erase(slot);
  }
  if (work.merge == Merge::fold) {
    if (work.to_slot) slots_.at(work.slot).content = result;
    for (const auto slot : work.parts)
      if (slot != work.slot || work.free_slot) slots_.erase(slot);
  }
  if (work.keep) m->keep(layout, work.chunk);
  if (work.to_output) m->write(layout, work.chunk, result);
}

Content DataPlane::fold(const Work& work, const Content& own) {
  Content sum;
  for (std::size_t i = 0; i < work.parts.size(); ++i) {
    const auto slot = slots_.find(work.parts[i]);
    if (work.parts[i] != no_slot && slot == slots_.end()) {
      process_.world().violated("a fold of a slot that is free");
      return own;
    }
    const auto& part = work.parts[i] == no_slot ? own : slot->second.content;
    sum = i == 0 ? part : add(sum, part);
  }
  return sum;
}

// ---- sending ----

Content DataPlane::read(const Outgoing& outgoing) const {
  const auto* attempt = process_.exchange.find(outgoing.key);
  const auto m = memories_.find(outgoing.key);
  if (attempt == nullptr || attempt->id != outgoing.attempt || m == memories_.end()) {
    process_.world().violated("a frame is sent of an attempt that is over: " + describe(outgoing.key));
    return {};
  }
  const auto& layout = attempt->executor->layout();
  if (outgoing.send.place == Place::input) return m->second.input(layout, outgoing.send.chunk);
  if (outgoing.send.place == Place::output) return m->second.output(layout, outgoing.send.chunk);
  const auto slot = slots_.find(outgoing.send.slot);
  if (slot != slots_.end()) return slot->second.content;
  process_.world().violated("a frame is sent from a slot that is free: " + describe(outgoing.key));
  return {};
}

void DataPlane::sent(const Outgoing& outgoing) {
  if (process_.exchange.sent(outgoing)) slots_.erase(outgoing.send.slot);
}

// ---- receiving ----

Incoming DataPlane::prepare(const wire::DataHeader& header, const Landing& landing) {
  const auto* attempt = process_.exchange.find(header.key);
  auto& m = memories_.at(header.key);
  Incoming incoming{header, attempt->id, landing, no_slot};
  if (landing.kind == Landing::Kind::slot) {
    incoming.slot = next_slot_++;
    slots_[incoming.slot] = {attempt->id, {}};
  } else if (landing.kind == Landing::Kind::output) {
    if (landing.keep) m.keep(attempt->executor->layout(), header.chunk);
    m.scribble(attempt->executor->layout(), header.chunk);
  }
  return incoming;
}

void DataPlane::put(const Incoming& incoming, Content content) {
  if (incoming.landing.kind == Landing::Kind::slot) {
    slots_.at(incoming.slot).content = std::move(content);
  } else if (incoming.landing.kind == Landing::Kind::output) {
    const auto& layout = process_.exchange.find(incoming.header.key)->executor->layout();
    memories_.at(incoming.header.key).write(layout, incoming.header.chunk, content);
  }
  process_.session.note_moved(incoming.header.key);
  process_.exchange.arrived(incoming.header, incoming.slot);
}

std::optional<Incoming> DataPlane::land(PeerId from, const wire::DataHeader& header) {
  const auto landing = process_.exchange.land(from, header);
  if (landing.kind == Landing::Kind::skip) return std::nullopt;
  if (landing.kind != Landing::Kind::park) return prepare(header, landing);
  if (!process_.exchange.may_park(from, header.bytes)) {
    process_.world().violated("honest peers park too much");
    return std::nullopt;
  }
  return Incoming{header, 0, landing, no_slot};
}

void DataPlane::landed(PeerId from, const Incoming& incoming, Content content) {
  if (incoming.landing.kind == Landing::Kind::park)
    return offer_parked(from, incoming.header, std::move(content));
  put(incoming, std::move(content));
}

void DataPlane::offer_parked(PeerId from, const wire::DataHeader& header, Content content) {
  const auto landing = process_.exchange.land(from, header);
  if (landing.kind == Landing::Kind::skip) return;
  if (landing.kind != Landing::Kind::park) return put(prepare(header, landing), std::move(content));
  parked_[process_.exchange.park(from, header)] = {from, header, std::move(content)};
}

void DataPlane::replay(ParkedId id) {
  auto node = parked_.extract(id);
  if (!node.empty()) offer_parked(node.mapped().from, node.mapped().header, std::move(node.mapped().content));
}

}  // namespace pccl::sim
