#include "household.hpp"

namespace pccl::hostile {

Household::Household(std::uint64_t seed, Join join)
    : rng(seed), session(std::move(join), Timing{}), exchange(session, {}, {4096, 4, 2}) {
  session.on_master_up(now);
  drain();
}

void Household::hear(const ToPeer& message) {
  session.on(message, now);
  drain();
}

void Household::enter(std::uint32_t peers) {
  hear(Welcome{2, 1, 0, 500, "me"});
  View view;
  view.id = {0, 1};
  for (std::uint32_t p = 1; p <= peers; ++p) {
    Member member;
    member.peer = p;
    member.island = std::string(1, char('a' + p));
    member.role = session.identity().role;
    member.reachable_at = {{"127.0.0.1", 1}};
    view.members.push_back(member);
  }
  hear(ViewMessage{view, ""});
  for (const PeerId peer : {1, 3})
    if (peer <= peers) session.on_link_up(peer, now), exchange.on_link_up(peer), drain();
}

std::optional<OpKey> Household::post(Descriptor descriptor, std::uint32_t name, bool in_place) {
  Posting posting;
  posting.name = name;
  posting.descriptor = std::move(descriptor);
  if (rng.chance(0.3)) posting.timeout = Duration(rng.below(100 * millisecond));
  const bool state = posting.descriptor.call == Call::sync_state;
  const auto key = session.post(std::move(posting), now);
  if (!key) return std::nullopt;
  open.insert(key.value());
  if (in_place) in_place_.insert(key.value());
  if (state) states_.insert(key.value());
  drain();
  return key.value();
}

void Household::frame(PeerId from, const wire::DataHeader& header) {
  const auto landing = exchange.land(from, header);
  if (landing.kind == Landing::Kind::skip) return;
  if (landing.kind == Landing::Kind::park) {
    if (exchange.may_park(from, header.bytes)) parked[exchange.park(from, header)] = {from, header};
    return;
  }
  const auto* attempt = exchange.find(header.key);
  REQUIRE(attempt != nullptr && attempt->executor != nullptr);
  CHECK(header.chunk < attempt->executor->layout().chunks());
  arriving.push_back({header, landing.kind == Landing::Kind::slot ? ++last_slot_ : no_slot});
}

void Household::finish_one() {
  if (arriving.empty()) return;
  const auto at = arriving.begin() + std::ptrdiff_t(rng.below(arriving.size()));
  const auto [header, slot] = *at;
  arriving.erase(at);
  exchange.arrived(header, slot);
  drain();
}

void Household::answer_dials() {
  for (const auto peer : std::exchange(dialled, {})) {
    if (rng.chance(0.4))
      session.on_link_up(peer, now), exchange.on_link_up(peer);
    else
      session.on_dial_failed(peer, rng.chance(0.5), "no", now);
    drain();
  }
}

void Household::drain() {
  for (bool moved = true; moved;) {
    moved = false;
    for (auto& e : session.take_effects()) std::visit([&](auto& x) { apply(x); }, e), moved = true;
    std::vector<ExchangeEffect> effects;
    while (exchange.take_effects(effects)) {
      for (auto& e : effects) std::visit([&](auto& x) { apply(x); }, e);
      moved = true;
    }
  }
}

void Household::forget_arriving(const OpKey& key) {
  std::erase_if(arriving, [&](const Arriving& a) { return a.header.key == key; });
}

void Household::complete(const OpKey& key) {
  held_.insert(key);
  session.attempt_complete(key, now);
}

void Household::apply(effect::DropAttempt& e) {
  forget_arriving(e.key);
  exchange.drop(e.key);
  held_.erase(e.key);
}

void Household::apply(effect::StartAttempt& e) {
  if (states_.contains(e.key)) {
    StateOffer offer;
    offer.entries.resize(2);
    return session.offer_state(e.key, session.view().id, offer);
  }
  exchange.begin(e.key, in_place_.contains(e.key));
}

void Household::apply(effect::Deliver& e) {
  CHECK_EQ(open.erase(e.key), 1);
  if (e.outcome.error.code == ErrorCode::none)
    CHECK(held_.contains(e.key));  // success is what this peer holds
  forget_arriving(e.key);
  exchange.drop(e.key);
  ++delivered;
}

void Household::apply(effect::Elected& e) {
  CHECK_EQ(e.plan.entries.size(), 2);
  complete(e.plan.key);
}

void Household::apply(effect::Gone& e) {
  CHECK(e.why.code != ErrorCode::none);
  gone = true;
}

void Household::apply(exchange_effect::Replay& e) {
  const auto replayed = parked.extract(e.parked);
  REQUIRE(!replayed.empty());
  frame(replayed.mapped().first, replayed.mapped().second);
}

Descriptor reduce(std::uint64_t count, DType dtype) {
  Descriptor d;
  d.call = Call::all_reduce;
  d.tensors = {{dtype, count}};
  return d;
}

}  // namespace pccl::hostile
