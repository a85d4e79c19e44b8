#include "runtime/links.hpp"

#include <algorithm>
#include <cerrno>

#include "net/address.hpp"

namespace pccl {

namespace {
const Error replaced{ErrorCode::closed, "another link took its place"};
const Error hung_up{ErrorCode::closed, "the peer is in the view no more"};
}  // namespace

bool Links::Link::complete() const {
  return !stripes.empty() &&
         std::none_of(stripes.begin(), stripes.end(), [](auto* s) { return s == nullptr; });
}

// ---- dialling ----

void Links::dial(PeerId peer, std::vector<Address> addresses) {
  if (up_.contains(peer) || dialling_.contains(peer)) return;
  auto& dialling = dialling_[peer];
  dialling.addresses = std::move(addresses);
  dialling.since = monotonic_now();
  dial_next(peer, dialling);
}

// Addresses are tried one after the other. Peers advertise numbers, and names where the user gave one.
void Links::dial_next(PeerId peer, Dialling& dialling) {
  if (!dialling.found.empty()) {
    const auto address = dialling.found.front();
    dialling.found.pop_front();
    return start_stripes(peer, dialling, address);
  }
  if (dialling.next_address == dialling.addresses.size())
    return dial_over(peer, dialling.refused, dialling.why);
  dialling.look_up = ++look_ups_;
  resolver_.ask(dialling.addresses[dialling.next_address++],
                [this, peer, number = dialling.look_up](auto found) { looked_up(peer, number, found); });
}

void Links::looked_up(PeerId peer, std::uint64_t look_up, Resolver::Found found) {
  const auto it = dialling_.find(peer);
  if (it == dialling_.end() || it->second.look_up != look_up) return;  // nobody waits for it any more
  if (found) {
    it->second.found.assign(found->begin(), found->end());
  } else {
    it->second.refused = false;
    it->second.why = found.error().text;
  }
  dial_next(peer, it->second);
}

void Links::start_stripes(PeerId peer, Dialling& dialling, const net::SocketAddress& address) {
  dialling.link.number = (me_ << 20) ^ next_number_++;
  dialling.link.stripes.assign(stripes_default, nullptr);
  for (std::uint8_t i = 0; i < stripes_default; ++i) {
    net::SocketOptions options{congestion_, {}, unacked_max_};
    options.path.same_host = address.is_loopback();
    auto socket = net::start_connect(address, options);
    const auto nonce = net::random_nonce();
    if (!socket || !nonce) {
      dialling.refused = false;
      dialling.why = socket ? nonce.error().text : socket.error().text;
      drop(dialling.link, {ErrorCode::closed, dialling.why});
      return dial_next(peer, dialling);
    }
    auto& c = hub_.add(std::make_unique<net::Connection>(
        std::move(*socket), net::Handshake(net::Side::dialler, protocol_version, secret_, nonce.value()),
        address.text(), *this));
    dialling.link.stripes[i] = &c;
    roles_[&c] = {peer, dialling.link.number, true, i, monotonic_now()};
    Bytes hello;
    wire::encode(LinkHello{run_, me_, peer, dialling.link.number, i, stripes_default}, hello);
    c.send_message(hello);
    hub_.touch(c);
  }
}

void Links::dial_over(PeerId peer, bool refused, std::string why) {  // a copy: it may live in what ends here
  const auto it = dialling_.find(peer);
  if (it == dialling_.end()) return;
  auto link = std::move(it->second.link);
  dialling_.erase(it);
  drop(link, {ErrorCode::closed, why});
  owner_.dial_failed(peer, refused, why);
}

// ---- hellos ----

void Links::accept(net::Accepted accepted) {
  const auto strangers =
      std::count_if(roles_.begin(), roles_.end(), [](const auto& r) { return r.second.peer == no_peer; });
  const auto nonce = net::random_nonce();
  if (!nonce || std::size_t(strangers) >= limits::strangers_max) return;
  auto& c = hub_.add(std::make_unique<net::Connection>(
      std::move(accepted.socket),
      net::Handshake(net::Side::acceptor, protocol_version, secret_, nonce.value()), accepted.from.text(),
      *this));
  roles_[&c] = {no_peer, 0, false, 0, monotonic_now()};
  hub_.touch(c);
}

void Links::on_ready(net::Connection& c) {
  // By now the kernel has measured the way.
  const auto path = net::path_of(c.socket());
  net::set_congestion(c.socket(), congestion_, path);
  net::set_buffers(c.socket(), path);
  // Whom this peer dialled is known; chunks on one stripe may overtake the answer on the first, and wait for
  // it paused.
  if (const auto it = roles_.find(&c); it != roles_.end() && it->second.dialled) c.trust();
  hub_.touch(c);
}

bool Links::on_hello(net::Connection& c, Role& role, const LinkHello& hello) {
  if (run_ == 0 || hello.run != run_ || hello.to != me_ || hello.from == me_ || hello.from == no_peer)
    return false;
  if (hello.stripes < 1 || hello.stripes > limits::stripes_max || hello.stripe >= hello.stripes) return false;
  // Both ends dial at once: the larger id's dial wins, so that both keep the same one; but not for ever, it
  // may be that only the other end can reach this one.
  if (const auto own = dialling_.find(hello.from); own != dialling_.end() && me_ > hello.from)
    if (monotonic_now() - own->second.since < own_dial_wins) return false;
  if (const auto it = up_.find(hello.from); it != up_.end() && me_ > hello.from && it->second.dialled)
    if (monotonic_now() - it->second.since < own_dial_wins)
      return false;  // it crossed the dial that made this link
  auto& arriving = arriving_[hello.from];
  if (arriving.number != hello.link) {
    auto old = std::exchange(
        arriving, Link{hello.link, std::vector<net::Connection*>(hello.stripes, nullptr), false, 0});
    drop(old, replaced);
  }
  if (arriving.stripes.size() != hello.stripes || arriving.stripes[hello.stripe] != nullptr) return false;
  arriving.stripes[hello.stripe] = &c;
  role = {hello.from, hello.link, false, hello.stripe, role.since};
  c.trust();
  if (!arriving.complete()) return true;
  auto link = std::move(arriving);
  arriving_.erase(hello.from);
  Bytes answer;
  wire::encode(LinkHello{run_, me_, hello.from, hello.link, 0, hello.stripes}, answer);
  link.stripes[0]->send_message(answer);
  hub_.touch(*link.stripes[0]);
  if (const auto it = dialling_.find(hello.from); it != dialling_.end()) {
    auto own = std::move(it->second.link);
    dialling_.erase(it);
    drop(own, replaced);
  }
  establish(hello.from, std::move(link));
  return true;
}

bool Links::on_hello_answer(net::Connection&, const Role& role, const LinkHello& hello) {
  const auto it = dialling_.find(role.peer);
  if (it == dialling_.end() || hello.from != role.peer || hello.link != it->second.link.number ||
      role.stripe != 0)
    return false;
  auto link = std::move(it->second.link);
  const auto peer = role.peer;
  dialling_.erase(it);
  link.dialled = true;
  establish(peer, std::move(link));
  return true;
}

void Links::establish(PeerId peer, Link link) {
  if (const auto it = up_.find(peer); it != up_.end()) {
    auto old = std::exchange(it->second, Link{});
    drop(old, replaced);
  }
  auto& now = up_[peer] = std::move(link);
  now.since = monotonic_now();
  owner_.link_up(peer);
  for (auto* stripe : std::vector(now.stripes))  // what came before the answer did
    if (stripe != nullptr && !stripe->want_read()) {
      stripe->resume();
      hub_.touch(*stripe);
      stripe->on_io(true, false);
    }
}

// ---- closing ----

// Forget the roles first: closing calls back, and these closings are nobody's loss.
void Links::drop(Link& link, const Error& why) {
  auto stripes = std::move(link.stripes);
  link.stripes.clear();
  for (auto* stripe : stripes)
    if (stripe != nullptr) roles_.erase(stripe);
  for (auto* stripe : stripes)
    if (stripe != nullptr) stripe->close(why);
}

void Links::hang_up(PeerId peer) {
  for (auto* table : {&up_, &arriving_})
    if (const auto it = table->find(peer); it != table->end()) {
      auto link = std::move(it->second);
      table->erase(it);
      drop(link, hung_up);
    }
  if (const auto it = dialling_.find(peer); it != dialling_.end()) {
    auto link = std::move(it->second.link);
    dialling_.erase(it);
    drop(link, hung_up);
  }
}

void Links::close_all() {
  resolver_.close();
  std::vector<net::Connection*> all;
  for (auto& [c, role] : roles_) all.push_back(c);
  roles_.clear();
  up_.clear();
  dialling_.clear();
  arriving_.clear();
  for (auto* c : all) c->close({ErrorCode::closed, "closed"});
}

void Links::on_closed(net::Connection& c, const Error& why) {
  owner_.stripe_closed(c);
  const auto it = roles_.find(&c);
  const auto role = it == roles_.end() ? Role{} : it->second;
  if (it != roles_.end()) roles_.erase(it);
  hub_.retire(c);
  if (role.peer == no_peer) return;
  if (const auto up = up_.find(role.peer); up != up_.end() && up->second.number == role.number) {
    auto link = std::move(up->second);
    up_.erase(up);
    std::replace(link.stripes.begin(), link.stripes.end(), &c, static_cast<net::Connection*>(nullptr));
    drop(link, why);
    return owner_.link_down(role.peer, why.text);
  }
  if (const auto arriving = arriving_.find(role.peer);
      arriving != arriving_.end() && arriving->second.number == role.number) {
    auto link = std::move(arriving->second);
    arriving_.erase(arriving);
    std::replace(link.stripes.begin(), link.stripes.end(), &c, static_cast<net::Connection*>(nullptr));
    return drop(link, why);
  }
  const auto dialling = dialling_.find(role.peer);
  if (dialling == dialling_.end() || dialling->second.link.number != role.number || !role.dialled) return;
  auto& attempt = dialling->second;
  std::replace(attempt.link.stripes.begin(), attempt.link.stripes.end(), &c,
               static_cast<net::Connection*>(nullptr));
  drop(attempt.link, why);
  attempt.refused &= c.system_error() == ECONNREFUSED;
  attempt.why = c.remote() + ": " + why.text;
  dial_next(role.peer, attempt);
}

void Links::tick(Instant now) {
  std::vector<net::Connection*> late;
  for (auto& [c, role] : roles_) {
    const bool is_up =
        role.peer != no_peer && up_.contains(role.peer) && up_.at(role.peer).number == role.number;
    if (!is_up && now - role.since > hello_timeout) late.push_back(c);
  }
  for (auto* c : late)
    if (roles_.contains(c)) c->close({ErrorCode::timeout, "it did not say hello within 5 s"});
}

// ---- traffic ----

Links::Link* Links::link_of(const Role& role, bool* is_up) {
  const auto it = up_.find(role.peer);
  *is_up = it != up_.end() && it->second.number == role.number;
  return *is_up ? &it->second : nullptr;
}

bool Links::on_message(net::Connection& c, ByteView body) {
  const auto it = roles_.find(&c);
  const auto message = wire::decode<BetweenPeers>(body);
  if (!message || it == roles_.end()) return false;
  if (const auto* hello = std::get_if<LinkHello>(&*message))
    return it->second.peer == no_peer ? on_hello(c, it->second, *hello)
                                      : on_hello_answer(c, Role(it->second), *hello);
  bool is_up = false;
  link_of(it->second, &is_up);
  return is_up && owner_.link_message(it->second.peer, *message);
}

net::Landing Links::on_payload(net::Connection& c, wire::FrameKind kind, ByteView head, std::size_t bytes) {
  const auto it = roles_.find(&c);
  if (it == roles_.end() || it->second.peer == no_peer) return {.close = true};
  bool is_up = false;
  link_of(it->second, &is_up);
  if (!is_up) return {.pause = true};  // a stripe is ahead of the answer on the first one
  return owner_.link_payload(it->second.peer, c, kind, head, bytes);
}

void Links::on_payload_end(net::Connection& c) {
  if (const auto it = roles_.find(&c); it != roles_.end()) owner_.link_payload_end(it->second.peer, c);
}

void Links::on_sent(net::Connection& c, std::uint64_t token) {
  if (const auto it = roles_.find(&c); it != roles_.end()) owner_.link_sent(it->second.peer, token);
}

void Links::send(PeerId peer, const BetweenPeers& message) {
  const auto it = up_.find(peer);
  if (it == up_.end()) return;
  Bytes body;
  wire::encode(message, body);
  it->second.stripes[0]->send_message(body);
  hub_.touch(*it->second.stripes[0]);
}

net::Connection* Links::stripe_for_chunk(PeerId peer) {
  const auto it = up_.find(peer);
  if (it == up_.end()) return nullptr;
  net::Connection* best = nullptr;
  for (auto* stripe : it->second.stripes) {
    if (stripe->queued_frames() >= frames_in_flight_max || stripe->queued_bytes() >= bytes_in_flight_max)
      continue;
    if (best == nullptr || stripe->queued_bytes() < best->queued_bytes()) best = stripe;
  }
  return best;
}

net::Connection* Links::stripe_for_block(PeerId peer) {
  const auto it = up_.find(peer);
  if (it == up_.end()) return nullptr;
  return *std::min_element(it->second.stripes.begin(), it->second.stripes.end(),
                           [](auto* a, auto* b) { return a->queued_bytes() < b->queued_bytes(); });
}

void Links::detach(PeerId peer, std::uint64_t token) {
  if (const auto it = up_.find(peer); it != up_.end())
    for (auto* stripe : it->second.stripes) stripe->detach(token);
}

std::map<PeerId, LinkInfo> Links::info() const {
  std::map<PeerId, LinkInfo> all;
  for (const auto& [peer, link] : up_) {
    auto& info = all[peer];
    info.stripes = std::uint32_t(link.stripes.size());
    info.congestion = net::congestion_of(link.stripes[0]->socket());
    info.remote = link.stripes[0]->remote();
    for (const auto* stripe : link.stripes)
      info.bytes_in += stripe->bytes_in(), info.bytes_out += stripe->bytes_out();
  }
  return all;
}

}  // namespace pccl
