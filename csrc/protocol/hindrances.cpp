#include "protocol/hindrances.hpp"

#include <algorithm>

namespace pccl {

namespace {

// Less says nothing about a link.
constexpr std::uint32_t stalled_ms = 1000;
// What lies unread at a receiver that keeps up is less.
constexpr std::uint64_t unread_much = 64u << 10;
// A link stands out when it held up its sender for so many times as long as the others did theirs.
constexpr std::uint32_t stands_out = 2;

// For so long the other end, or the way to it, took nothing, or not enough.
std::uint32_t held_up_ms(const LinkState& link) {
  if (!link.to_send && link.queued == 0 && link.offered == 0) return 0;
  return std::max(link.full_ms, link.sent_ago_ms == LinkState::not_yet ? 0 : link.sent_ago_ms);
}

bool is_there(const Witness& witness) { return witness.came || witness.done; }

bool starved(const Witness& witness, const LinkState& link) {
  return !witness.done && link.source && link.received_ago_ms >= stalled_ms;
}

const LinkState* link_of(const std::vector<Witness>& all, PeerId from, PeerId to) {
  const auto witness = std::ranges::find(all, from, &Witness::peer);
  if (witness == all.end()) return nullptr;
  const auto link = std::ranges::find(witness->links, to, &LinkState::peer);
  return link == witness->links.end() ? nullptr : &*link;
}

// Data or word of it came to somebody, whatever the master has heard.
bool seen(const std::vector<Witness>& all, PeerId peer) {
  return std::ranges::any_of(all, [&](const Witness& other) {
    const auto it = std::ranges::find(other.links, peer, &LinkState::peer);
    return it != other.links.end() && it->came;
  });
}

// Who is not there, or is stopped. Who came a moment ago, and has not waited for long yet, is at no fault.
std::vector<Hindrance> not_there(const std::vector<Witness>& all, Duration silent_max) {
  std::vector<Hindrance> found;
  for (const auto& witness : all)
    if (witness.silent >= silent_max)
      found.push_back({witness.peer, Trouble::silent, no_peer, Call::barrier,
                       std::uint32_t(witness.silent / millisecond), 0});
  for (const auto& witness : all) {
    if (is_there(witness) || witness.silent >= silent_max || seen(all, witness.peer)) continue;
    const auto trouble = witness.elsewhere ? Trouble::elsewhere : Trouble::late;
    found.push_back({witness.peer, trouble, no_peer, witness.elsewhere.value_or(Call::barrier), 0, 0});
  }
  return found;
}

// The link that held up its sender for longest, if it stands out: where all are equally busy, none is at
// fault.
std::optional<Hindrance> slow_link(const std::vector<Witness>& all) {
  const Witness* sender = nullptr;
  const LinkState* worst = nullptr;
  std::vector<std::uint32_t> others;
  for (const auto& witness : all) {
    const auto it = std::ranges::max_element(witness.links, {}, held_up_ms);
    const bool any = it != witness.links.end();
    if (any && held_up_ms(*it) >= stalled_ms && (worst == nullptr || held_up_ms(*it) > held_up_ms(*worst)))
      sender = &witness, worst = &*it;
    others.push_back(any ? held_up_ms(*it) : 0);
  }
  if (worst == nullptr) return std::nullopt;
  others.erase(std::ranges::find(others, held_up_ms(*worst)));
  std::ranges::sort(others);
  if (!others.empty() && held_up_ms(*worst) < stands_out * others[others.size() / 2]) return std::nullopt;
  const auto* receiver = link_of(all, worst->peer, sender->peer);
  const bool unread = receiver != nullptr && receiver->unread >= unread_much;
  if (unread || worst->offered != 0)
    return Hindrance{worst->peer,   Trouble::receives_slowly, sender->peer,
                     Call::barrier, held_up_ms(*worst),       0};
  const auto rate = worst->sent / held_up_ms(*worst) * 1000;
  return Hindrance{sender->peer, Trouble::slow_way, worst->peer, Call::barrier, held_up_ms(*worst), rate};
}

// Others have nothing from it, no link is full, and it waits for nobody.
std::vector<Hindrance> slow_senders(const std::vector<Witness>& all) {
  std::vector<Hindrance> found;
  for (const auto& witness : all) {
    const auto waits = [&](const LinkState& link) { return starved(witness, link); };
    if (witness.done || std::ranges::any_of(witness.links, waits)) continue;
    for (const auto& other : all) {
      const auto it = std::ranges::find(other.links, witness.peer, &LinkState::peer);
      if (it == other.links.end() || !starved(other, *it)) continue;
      found.push_back({witness.peer, Trouble::sends_slowly, other.peer, Call::barrier, stalled_ms, 0});
      break;
    }
  }
  return found;
}

std::string speed(std::uint64_t bytes_per_s) {
  const auto kilobytes = bytes_per_s / 1000;
  return kilobytes < 10'000 ? std::to_string(kilobytes) + " kB/s"
                            : std::to_string(kilobytes / 1000) + " MB/s";
}

}  // namespace

std::vector<Hindrance> find_hindrances(const std::vector<Witness>& all, Duration silent_max) {
  auto found = not_there(all, silent_max);
  if (!found.empty() || !std::ranges::all_of(all, is_there)) return found;  // links show no more than that
  if (const auto slow = slow_link(all)) return {*slow};
  return slow_senders(all);
}

std::string in_words(const Hindrance& h) {
  const auto other = "peer " + std::to_string(h.other);
  switch (h.trouble) {
    case Trouble::late:
      return "late to post, not come to the call yet: it computes, or is stuck elsewhere";
    case Trouble::elsewhere:
      return std::string("late to post: it waits in ") + name(h.call);
    case Trouble::silent:
      return "silent for " + std::to_string(h.since_ms) + " ms: stopped or cut off";
    case Trouble::receives_slowly:
      return "receives slowly: it does not read what " + other + " has sent";
    case Trouble::slow_way:
      return "the way from it to " + other + " is slow: " + speed(h.bytes_per_s);
    case Trouble::sends_slowly:
      return "sends slowly: " + other + " has nothing from it, and it waits for nobody";
  }
  return {};
}

bool alike(const Hindrance& a, const Hindrance& b) {
  return a.peer == b.peer && a.trouble == b.trouble && a.other == b.other && a.call == b.call;
}

bool alike(const std::vector<Hindrance>& a, const std::vector<Hindrance>& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) { return alike(x, y); });
}

}  // namespace pccl
