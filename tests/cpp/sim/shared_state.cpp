#include "sim/shared_state.hpp"

#include "sim/process.hpp"
#include "sim/world.hpp"

namespace pccl::sim {

namespace {

Version version(std::uint64_t number) {
  const auto n = std::uint8_t(number);
  return {std::uint8_t(n + 1), std::uint8_t(n / 2 + 1), std::uint8_t(n % 2 + 1)};
}

bool whole(const Version& content) { return content == version(content[0] - 1u); }

}  // namespace

void SharedStates::posted(const OpKey& key) {
  auto& rng = process_.world().rng;
  states_[key] = {version(rng.below(4)), rng.below(2), false, {}, {}, 0, {}};
}

void SharedStates::started(const OpKey& key, ViewId view) {
  states_.at(key).attempt = view;
  process_.world().for_process(process_, process_.world().data_delay(process_), [this, key, view] {
    const auto it = states_.find(key);
    if (!process_.alive || process_.over() || it == states_.end() || it->second.attempt != view) return;
    offer(key, view);
    process_.drain();
  });
}

// A mixture must not win: nobody else may ever have had it.
void SharedStates::offer(const OpKey& key, ViewId view) {
  auto& rng = process_.world().rng;
  auto& state = states_.at(key);
  StateOffer offer;
  offer.revision = state.revision;
  if (rng.chance(0.1)) offer.strategy = rng.chance(0.5) ? Strategy::send_only : Strategy::receive_only;
  if (state.torn) offer.strategy = Strategy::receive_only;
  for (std::uint32_t i = 0; i < entries; ++i) {
    StateEntry entry{"layer " + std::to_string(i), DType::float32, 1000, {}};
    entry.root[0] = state.holds[i];
    offer.entries.push_back(std::move(entry));
  }
  process_.session.offer_state(key, view, std::move(offer));
}

void SharedStates::elected(const StatePlan& plan) {
  auto& state = states_.at(plan.key);
  state.wanted_revision = plan.revision;
  for (std::uint32_t i = 0; i < entries; ++i) state.wanted[i] = plan.entries.at(i).entry.root[0];
  if (!whole(state.wanted)) return process_.world().violated("a mixture of two states is elected");
  state.missing.clear();
  for (std::uint32_t i = 0; i < entries; ++i) {
    const auto& donors = plan.entries[i].donors;
    if (state.holds[i] != state.wanted[i])
      state.missing[i] = donors.at(process_.world().rng.below(donors.size()));
  }
  for (const auto& [entry, donor] : state.missing) ask(plan.key, state, entry, donor);
  if (state.missing.empty()) complete(plan.key, plan.view);
}

void SharedStates::ask(const OpKey& key, const State& state, std::uint32_t entry, PeerId donor) {
  if (const auto link = process_.links.find(donor); link != process_.links.end())
    return process_.world().links.ask(
        {&process_, nullptr, link->second, key, state.attempt, entry, state.wanted[entry]});
  process_.session.want_link(donor, process_.now());
}

void SharedStates::on_link_up(PeerId peer) {
  for (const auto& [key, state] : states_)
    for (const auto& [entry, donor] : state.missing)
      if (donor == peer) ask(key, state, entry, donor);
}

bool SharedStates::serve(const Fetch& fetch) {
  const auto it = states_.find(fetch.key);
  if (it == states_.end() || it->second.attempt != fetch.view) return false;
  if (it->second.holds[fetch.entry] != fetch.value)
    process_.world().violated(process_.name() + " is a donor of what it does not hold");
  return true;
}

void SharedStates::landed(const Fetch& fetch) {
  const auto it = states_.find(fetch.key);
  if (it == states_.end() || it->second.attempt != fetch.view || it->second.missing.erase(fetch.entry) == 0)
    return;
  auto& state = it->second;
  state.holds[fetch.entry] = fetch.value;
  state.torn = !state.missing.empty();
  if (state.torn) return;
  state.revision = state.wanted_revision;
  complete(fetch.key, fetch.view);
}

void SharedStates::complete(const OpKey& key, ViewId view) {
  process_.world().for_process(process_, process_.world().data_delay(process_), [this, key, view] {
    const auto* operation = process_.session.find(key);
    if (!process_.alive || operation == nullptr || operation->view != view) return;
    process_.complete(key);
    process_.drain();
  });
}

void SharedStates::dropped(const OpKey& key) {
  const auto it = states_.find(key);
  if (it == states_.end()) return;
  it->second.attempt = {};
  it->second.missing.clear();
}

Version SharedStates::finished(const OpKey& key) {
  const auto node = states_.extract(key);
  return node.empty() ? Version{} : node.mapped().holds;
}

}  // namespace pccl::sim
