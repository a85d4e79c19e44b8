// The stripes of links that are up: how many, opening them, mending those that break.
#include <algorithm>
#include <cerrno>

#include "runtime/links.hpp"

namespace pccl {

namespace {

const Error renewed{ErrorCode::closed, "the other end opened the stripe anew"};
const Error no_descriptor{ErrorCode::closed, "no descriptor is left for another stripe"};

// More links may come: the first must not take what they need.
constexpr std::size_t links_expected = 4;

// Stripes of one link that are opened at once: where descriptors are few, also those count that are refused.
std::size_t openings(std::size_t limit) { return std::max<std::size_t>(limit / 64, 1); }

// Descriptors that stripes leave to the rest of the process.
std::size_t reserve(std::size_t limit) { return std::clamp<std::size_t>(limit / 4, 8, 256); }

}  // namespace

Links::Link* Links::link_of(const Role& role) {
  const auto it = up_.find(role.peer);
  return it != up_.end() && it->second.number == role.number ? &it->second : nullptr;
}

// ---- how many ----

void Links::advise(std::uint8_t stripes, std::uint64_t bandwidth, std::size_t peers) {
  alone_ = peers <= 2;
  advised_stripes_ = std::uint8_t(std::min<std::size_t>(stripes, limits::stripes_max));
  advised_bandwidth_ = bandwidth;
  for (auto& [peer, link] : up_)
    if (auto* c = link.any(); c != nullptr)
      want(peer, link, wanted_by(link, bandwidth, net::tcp_state(c->socket()).rtt_min));
}

std::uint8_t Links::wanted_by(const Link& link, std::uint64_t bandwidth, Duration rtt) const {
  if (options_.stripes != 0) return options_.stripes;
  if (advised_stripes_ != 0) return advised_stripes_;
  const auto rtt_us = rtt == never ? 0 : std::uint32_t(rtt / microsecond);
  const auto stripes = stripes_of(link.path, bandwidth, rtt_us);
  if (link.path != Path::wan || bandwidth != 0) return stripes;
  return std::max(stripes, alone_ ? wan_stripes_alone : wan_stripes);
}

// The dialler opens them; the other end can only ask for it.
void Links::want(PeerId peer, Link& link, std::uint8_t stripes) {
  stripes = std::uint8_t(std::clamp<std::size_t>(stripes, 1, limits::stripes_max));
  const auto before = std::exchange(link.wanted, std::max(link.wanted, stripes));
  if (link.wanted == before) return;
  if (!link.dialled) {
    LinkHello wish{HelloKind::more, run_, me_, peer, link.number, 0, stripes, 0, false};
    if (link.alive() < stripes) send(peer, wish);
    return;
  }
  const auto had = link.stripes.size();
  link.stripes.resize(std::max<std::size_t>(had, link.wanted));
  for (auto i = had; i < link.stripes.size(); ++i) open_later(link.stripes[i], monotonic_now());
}

// Fewer stripes rather than an error: each link has its share of what the process may still open.
std::size_t Links::stripes_allowed() const {
  const auto all = net::descriptors();
  std::size_t own = 0;
  for (const auto& [peer, link] : up_) own += link.sockets();
  const auto others = all.open - std::min(all.open, own) + reserve(all.limit);
  const auto left = all.limit - std::min(all.limit, others);
  return std::max<std::size_t>(left / std::max(up_.size(), links_expected), 1);
}

// What transfers have shown: how fast the stripes deliver together, over which distance.
void Links::look_at(PeerId peer, Link& link) {
  if (link.path == Path::host) return;
  std::uint64_t rate = 0, acked = 0;
  auto rtt = never;
  for (const auto& stripe : link.stripes) {
    if (stripe.connection == nullptr) continue;
    const auto state = net::tcp_state(stripe.connection->socket());
    rate += state.delivery_rate;
    acked += state.acked;
    rtt = std::min(rtt, state.rtt_min);
  }
  const bool moved = acked > std::exchange(link.acked, acked) + (1u << 20);
  if (rtt == never) return;
  if (link.path == Path::lan && !net::is_near({false, rtt})) {
    link.path = Path::wan;
    for (const auto& stripe : link.stripes) {
      if (stripe.connection == nullptr) continue;
      net::set_congestion(stripe.connection->socket(), options_.congestion, {false, rtt});
      net::keep_unsent_low(stripe.connection->socket());
    }
    want(peer, link, wanted_by(link, advised_bandwidth_, rtt));
  }
  if (moved) want(peer, link, wanted_by(link, std::max(rate, advised_bandwidth_), rtt));
}

// ---- opening ----

void Links::open_later(Stripe& stripe, Instant at) {
  stripe.open_at = at;
  open_at_ = std::min(open_at_, at);
}

void Links::open_due(Instant now) {
  if (now < open_at_) return;
  open_at_ = never;
  for (auto& [peer, link] : up_)
    for (std::size_t i = 0; i < link.stripes.size(); ++i) {
      auto& stripe = link.stripes[i];
      if (stripe.open_at <= now) open_stripe(peer, link, std::uint8_t(i));
      open_at_ = std::min(open_at_, stripe.open_at);
    }
}

void Links::open_stripe(PeerId peer, Link& link, std::uint8_t index) {
  auto& stripe = link.stripes[index];
  stripe.open_at = never;
  if (!link.dialled || stripe.connection != nullptr || stripe.opening != nullptr) return;
  if (link.sockets() >= stripes_allowed()) return open_later(stripe, monotonic_now() + reopen_last);
  if (link.sockets() - link.alive() >= openings(net::descriptors_limit()))
    return open_later(stripe, monotonic_now() + reopen_next);
  Role role;
  role.peer = peer;
  role.number = link.number;
  role.stripe = index;
  role.serial = ++stripe.serial;
  const auto connected = connect(link.address, role, link.wanted);
  if (connected)
    stripe.opening = connected.value();
  else
    open_later(stripe,
               monotonic_now() + std::min(reopen_first << std::min(stripe.failures++, 16u), reopen_last));
}

// At the end that was dialled.
bool Links::take_stripe(net::Connection& c, Role& role, const LinkHello& hello, Link& link) {
  if (hello.serial == 0) return false;
  if (link.stripes.size() <= hello.stripe) link.stripes.resize(hello.stripe + 1u);
  auto& stripe = link.stripes[hello.stripe];
  if (stripe.connection == nullptr && link.sockets() >= stripes_allowed()) {
    answer(c, hello, HelloKind::full, std::uint8_t(link.alive()));
    c.close_when_sent(no_descriptor);
    return true;
  }
  answer(c, hello, HelloKind::taken, hello.stripes);
  role.peer = hello.from;
  role.number = hello.link;
  role.stripe = hello.stripe;
  role.serial = hello.serial;
  link.wanted = std::max(link.wanted, std::min<std::uint8_t>(hello.stripes, limits::stripes_max));
  c.trust();
  attach(link, c, role);
  return true;
}

bool Links::stripe_answered(net::Connection& c, Role& role, const LinkHello& hello) {
  auto* link = link_of(role);
  if (link == nullptr || hello.stripe != role.stripe || hello.serial != role.serial) return false;
  auto& stripe = link->stripes[role.stripe];
  if (stripe.opening != &c) return false;
  stripe.opening = nullptr;
  if (hello.kind == HelloKind::taken) {
    stripe.failures = 0;
    attach(*link, c, role);
    return true;
  }
  const auto peer = role.peer;
  roles_.erase(&c);
  c.close(no_descriptor);
  open_later(stripe, monotonic_now() + reopen_last);
  if (hello.kind == HelloKind::unknown) lose(peer, {ErrorCode::peer_lost, "the other end has given it up"});
  return hello.kind != HelloKind::open;
}

// A stripe takes the place of one that the other end knows to be broken. What had come on that one counts.
void Links::attach(Link& link, net::Connection& c, Role& role) {
  const auto peer = role.peer;
  const auto index = role.stripe;
  role.attached = true;
  auto& stripe = link.stripes[role.stripe];
  stripe.serial = role.serial;
  auto* old = std::exchange(stripe.connection, &c);
  if (old != nullptr) drain_and_close(*old, renewed);
  const auto it = up_.find(peer);
  if (it == up_.end() || it->second.alive() < 2) return;
  const auto broke = std::exchange(it->second.stripes[index].broke, {});
  owner_.stripe_added(peer, broke.empty() ? broke
                                          : "stripe " + std::to_string(index) + " of the link to peer " +
                                                std::to_string(peer) + " is mended; it broke: " + broke);
}

// ---- mending ----

void Links::drain_and_close(net::Connection& c, const Error& why) {
  c.on_io(true, false);
  c.close(why);
}

void Links::on_stripe_lost(PeerId peer, const StripeLost& lost) {
  const auto it = up_.find(peer);
  if (it == up_.end() || it->second.number != lost.link || lost.stripe >= it->second.stripes.size()) return;
  const auto& stripe = it->second.stripes[lost.stripe];
  if (stripe.connection != nullptr && stripe.serial == lost.serial)
    drain_and_close(*stripe.connection, {ErrorCode::peer_lost, "the other end lost it"});
}

// A stripe that was part of the link. With the last one the link is lost; else the others carry on.
void Links::stripe_ended(const Role& role, net::Connection& c, const Error& why) {
  auto& link = up_.at(role.peer);
  auto& stripe = link.stripes[role.stripe];
  if (stripe.connection == &c) {
    stripe.connection = nullptr;
    if (link.dialled) open_later(stripe, monotonic_now());
  }
  if (link.alive() == 0) return lose(role.peer, why);
  ++link.mended;
  send(role.peer, StripeLost{link.number, role.stripe, role.serial});
  stripe.broke = why.text;
  owner_.stripe_broke(role.peer, c);
}

// One that never became part of it. Where nobody listens any more, nobody lives: the others break in a
// moment.
void Links::opening_ended(const Role& role, net::Connection& c, const Error& why) {
  auto& link = up_.at(role.peer);
  auto& stripe = link.stripes[role.stripe];
  if (stripe.opening != &c) return;
  stripe.opening = nullptr;
  const bool mends = role.serial > 1 || role.stripe == 0;
  if (mends && c.system_error() == ECONNREFUSED) return lose(role.peer, why);
  open_later(stripe,
             monotonic_now() + std::min(reopen_first << std::min(stripe.failures++, 16u), reopen_last));
}

void Links::lose(PeerId peer, const Error& why) {
  const auto it = up_.find(peer);
  if (it == up_.end()) return;
  auto link = std::move(it->second);
  up_.erase(it);
  drop(link, why);
  owner_.link_down(peer, why.text);
}

}  // namespace pccl
