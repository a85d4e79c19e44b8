// What travels on links: messages, payloads, receipts, and the choice of a stripe.
#include <algorithm>

#include "runtime/links.hpp"

namespace pccl {

// ---- receiving ----

bool Links::on_message(net::Connection& c, ByteView body) {
  const auto it = roles_.find(&c);
  const auto message = wire::decode<BetweenPeers>(body);
  if (!message || it == roles_.end()) return false;
  auto& role = it->second;
  if (const auto* hello = std::get_if<LinkHello>(&*message)) {
    if (role.peer == no_peer) {
      strangers_.left(&c);
      return on_hello(c, role, *hello);
    }
    if (!role.attached) return on_answer(c, role, *hello);
    auto* link = link_of(role);
    if (hello->kind != HelloKind::more || link == nullptr || !link->dialled || hello->link != link->number)
      return false;
    want(role.peer, *link, hello->stripes);
    return true;
  }
  if (!role.attached) return false;
  if (const auto* received = std::get_if<Received>(&*message)) {
    if (received->payloads > c.payloads_out()) return false;
    owner_.link_received(role.peer, c, received->payloads);
    return true;
  }
  if (const auto* lost = std::get_if<StripeLost>(&*message)) {
    on_stripe_lost(role.peer, *lost);
    return true;
  }
  return owner_.link_message(role.peer, *message);
}

net::Landing Links::on_payload(net::Connection& c, wire::FrameKind kind, ByteView head, std::size_t bytes) {
  const auto it = roles_.find(&c);
  if (it == roles_.end() || !it->second.attached) return {.close = true};
  tell_received(c, it->second);  // also where nothing but duplicates comes, which are dropped
  it->second.untold += bytes;
  return owner_.link_payload(it->second.peer, c, kind, head, bytes);
}

void Links::on_payload_end(net::Connection& c) {
  const auto it = roles_.find(&c);
  if (it == roles_.end()) return;
  const auto peer = it->second.peer;
  if (!owner_.link_payload_end(peer, c))
    return c.close({ErrorCode::protocol, c.remote() + ": a chunk came with other bytes than were sent"});
  // The owner may have hung up.
  if (const auto role = roles_.find(&c); role != roles_.end()) tell_received(c, role->second);
}

void Links::tell_received(net::Connection& c, Role& role) {
  if (role.untold < receipt_bytes) return;
  role.untold = 0;
  Bytes body;
  wire::encode(Received{c.payloads_in()}, body);
  c.send_message(body);
  hub_.touch(c);
}

// ---- sending ----

void Links::on_sent(net::Connection& c, std::uint64_t token) {
  const auto it = roles_.find(&c);
  if (it == roles_.end()) return;
  if (auto* link = link_of(it->second); link != nullptr && link->path == Path::wan) keep_pace(*link);
  owner_.link_sent(it->second.peer, c, token);
}

void Links::nothing_to_send(PeerId peer) {
  const auto it = up_.find(peer);
  if (it == up_.end() || it->second.path != Path::wan) return;
  for (const auto& stripe : it->second.stripes)
    if (stripe.connection != nullptr && stripe.connection->queued_frames() != 0) return;
  it->second.pace.idle();
}

void Links::keep_pace(Link& link) {
  const auto now = monotonic_now();
  if (!link.pace.due(now)) return;
  const auto seen = seen_of(link);
  if (!seen) return;
  const auto changed = link.pace.look(now, *seen);
  if (changed) link.bound = *changed;
  link.busy_at = now;
  share_stripes(now, seen->rtt_least);
  const auto carriers = link.carriers();
  if (link.bound == 0 || (!changed && link.paced_for == carriers)) return;
  link.paced_for = carriers;
  for (const auto& stripe : link.stripes)
    if (stripe.connection != nullptr) net::limit_rate(stripe.connection->socket(), link.bound / carriers);
}

std::optional<Pace::Seen> Links::seen_of(const Link& link) {
  Pace::Seen seen;
  seen.rtt_least = never;
  Duration sum = 0, count = 0;
  for (const auto& stripe : link.stripes) {
    if (stripe.connection == nullptr) continue;
    const auto state = net::tcp_state(stripe.connection->socket());
    if (state.rtt_min == never || state.rtt == never) continue;
    seen.delivered += state.delivered;
    seen.segments += state.segments;
    seen.segments_again += state.segments_again;
    seen.rtt_least = std::min(seen.rtt_least, state.rtt_min);
    sum += state.rtt;
    ++count;
  }
  if (count == 0) return std::nullopt;
  seen.rtt = sum / count;
  seen.at_least = net::rate_least * link.carriers();
  return seen;
}

// Links that were busy within a moment are so together, or will be again in the next operation. Until the
// line has been full on the way to each, how fast it is shows nowhere.
void Links::share_stripes(Instant now, Duration rtt) {
  const auto lately = [&](const Link& link) {
    return link.path == Path::wan && now - link.busy_at < busy_lately;
  };
  std::uint64_t bandwidth = 0;
  std::size_t busy = 0;
  bool known = true;
  for (const auto& [peer, link] : up_) {
    if (!lately(link)) continue;
    bandwidth += link.bound;
    known &= link.bound != 0;
    ++busy;
  }
  const auto stripes = bulk_stripes(known ? bandwidth : 0, std::uint32_t(rtt / microsecond), busy);
  for (auto& [peer, link] : up_)
    if (lately(link)) link.bulk_stripes = stripes;
}

bool Links::distant(PeerId peer) const {
  const auto it = up_.find(peer);
  return it != up_.end() && it->second.path == Path::wan;
}

bool Links::checksums(PeerId peer) const {
  const auto it = up_.find(peer);
  return it != up_.end() && it->second.checksum;
}

void Links::send(PeerId peer, const BetweenPeers& message) {
  const auto it = up_.find(peer);
  auto* stripe = it == up_.end() ? nullptr : it->second.any();
  if (stripe == nullptr) return;
  Bytes body;
  wire::encode(message, body);
  stripe->send_message(body);
  hub_.touch(*stripe);
}

net::Connection* Links::stripe_for_chunk(PeerId peer, bool bulk, const MayTake& may_take) {
  const auto it = up_.find(peer);
  if (it == up_.end()) return nullptr;
  const auto path = it->second.path;
  const auto frames = path == Path::wan ? frames_in_flight_wan : frames_in_flight_max;
  std::size_t carriers = limits::stripes_max;
  if (path == Path::wan && bulk) carriers = it->second.bulk_stripes;
  // Inside a host two streams only push each other's bytes out of the cache: the second is there for when
  // the first breaks.
  if (path == Path::host && options_.stripes == 0) carriers = 1;
  net::Connection* best = nullptr;
  for (const auto& stripe : it->second.stripes) {
    auto* c = stripe.connection;
    if (c == nullptr) continue;
    if (carriers-- == 0) break;
    const bool room = c->borrowed_frames() < frames && c->borrowed_bytes() < bytes_in_flight_max;
    if (room && (best == nullptr || c->queued_bytes() < best->queued_bytes()) && may_take(*c)) best = c;
  }
  return best;
}

net::Connection* Links::stripe_for_block(PeerId peer) {
  const auto it = up_.find(peer);
  if (it == up_.end()) return nullptr;
  net::Connection* best = nullptr;
  for (const auto& stripe : it->second.stripes)
    if (auto* c = stripe.connection; c != nullptr)
      if (best == nullptr || c->queued_bytes() < best->queued_bytes()) best = c;
  return best;
}

void Links::detach(PeerId peer, std::uint64_t token) {
  if (const auto it = up_.find(peer); it != up_.end())
    for (const auto& stripe : it->second.stripes)
      if (stripe.connection != nullptr) stripe.connection->detach(token);
}

// ---- for people ----

std::map<PeerId, LinkInfo> Links::info() const {
  std::map<PeerId, LinkInfo> all;
  for (const auto& [peer, link] : up_) {
    auto* first = link.any();
    if (first == nullptr) continue;
    auto& info = all[peer];
    info.stripes = std::uint32_t(link.alive());
    info.mended = link.mended;
    info.congestion = net::congestion_of(first->socket());
    info.remote = first->remote();
    info.path = link.path;
    info.rtt = net::tcp_state(first->socket()).rtt;
    for (const auto& stripe : link.stripes)
      if (stripe.connection != nullptr)
        info.bytes_in += stripe.connection->bytes_in(), info.bytes_out += stripe.connection->bytes_out();
  }
  return all;
}

}  // namespace pccl
