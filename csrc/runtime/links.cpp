// Links: dialling, accepting, hellos, hanging up.
#include "runtime/links.hpp"

#include <algorithm>
#include <cerrno>

#include "net/address.hpp"

namespace pccl {

namespace {
const Error replaced{ErrorCode::closed, "another link took its place"};
const Error hung_up{ErrorCode::closed, "the peer is in the view no more"};
}  // namespace

std::size_t Links::Link::alive() const {
  return std::size_t(std::count_if(stripes.begin(), stripes.end(),
                                   [](const Stripe& stripe) { return stripe.connection != nullptr; }));
}

std::size_t Links::Link::sockets() const {
  return alive() + std::size_t(std::count_if(stripes.begin(), stripes.end(),
                                             [](const Stripe& s) { return s.opening != nullptr; }));
}

net::Connection* Links::Link::any() const {
  for (const auto& stripe : stripes)
    if (stripe.connection != nullptr) return stripe.connection;
  return nullptr;
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
    return dial_address(peer, dialling, address);
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

// The first stripe makes the link; when it is there, it tells how many more the path needs.
void Links::dial_address(PeerId peer, Dialling& dialling, const net::SocketAddress& address) {
  dialling.number = (me_ << 20) ^ next_number_++;
  dialling.address = address;
  Role role;
  role.peer = peer;
  role.number = dialling.number;
  const auto connected = connect(address, role, 1);
  if (connected) {
    dialling.connection = connected.value();
    return;
  }
  dialling.refused = false;
  dialling.why = connected.error().text;
  dial_next(peer, dialling);
}

Result<net::Connection*> Links::connect(const net::SocketAddress& address, Role role, std::uint8_t stripes) {
  net::SocketOptions socket_options{options_.congestion, {}, options_.unacked_max};
  socket_options.path.same_host = address.is_loopback();
  auto socket = net::start_connect(address, socket_options);
  if (!socket) return socket.error();
  const auto nonce = net::random_nonce();
  if (!nonce) return nonce.error();
  auto& c = hub_.add(std::make_unique<net::Connection>(
      std::move(*socket), net::Handshake(net::Side::dialler, protocol_version, secret_, nonce.value()),
      address.text(), *this));
  if (!c.open()) return Error{ErrorCode::connect, "the connection could not be polled"};
  role.dialled = true;
  role.since = monotonic_now();
  roles_[&c] = role;
  Bytes hello;
  wire::encode(LinkHello{HelloKind::open, run_, me_, role.peer, role.number, role.stripe, stripes,
                         role.serial, options_.checksum},
               hello);
  c.send_message(hello);
  hub_.touch(c);
  return &c;
}

void Links::dial_over(PeerId peer, bool refused, std::string why) {  // a copy: it may live in what ends here
  forget_dialling(peer, {ErrorCode::closed, why});
  owner_.dial_failed(peer, refused, why);
}

void Links::forget_dialling(PeerId peer, const Error& why) {
  const auto it = dialling_.find(peer);
  if (it == dialling_.end()) return;
  auto* c = it->second.connection;
  dialling_.erase(it);
  if (c == nullptr) return;
  roles_.erase(c);  // first: closing calls back, and this closing is nobody's loss
  c->close(why);
}

void Links::dial_closed(PeerId peer, net::Connection& c, const Error& why) {
  const auto it = dialling_.find(peer);
  if (it == dialling_.end() || it->second.connection != &c) return;
  auto& dialling = it->second;
  dialling.connection = nullptr;
  dialling.refused &= c.system_error() == ECONNREFUSED;
  dialling.why = c.remote() + ": " + why.text;
  dial_next(peer, dialling);
}

// ---- hellos ----

void Links::accept(net::Accepted accepted) {
  if (const auto why = strangers_.refuses(accepted.from); !why.empty())
    return stranger_log_.gone(accepted.from.text(), why, monotonic_now());
  const auto nonce = net::random_nonce();
  if (!nonce) return;
  auto& c = hub_.add(std::make_unique<net::Connection>(
      std::move(accepted.socket),
      net::Handshake(net::Side::acceptor, protocol_version, secret_, nonce.value()), accepted.from.text(),
      *this));
  Role role;
  role.since = monotonic_now();
  roles_[&c] = role;
  strangers_.came(&c, accepted.from);
  hub_.touch(c);
}

void Links::on_ready(net::Connection& c) {
  // By now the kernel has measured the way.
  const auto path = net::path_of(c.socket());
  net::set_congestion(c.socket(), options_.congestion, path);
  net::set_buffers(c.socket(), path);
  if (!net::is_near(path)) net::keep_unsent_low(c.socket());
  // Whom this peer dialled is known.
  if (const auto it = roles_.find(&c); it != roles_.end() && it->second.dialled) c.trust();
  hub_.touch(c);
}

void Links::answer(net::Connection& c, const LinkHello& hello, HelloKind kind, std::uint8_t stripes) {
  Bytes body;
  wire::encode(LinkHello{kind, run_, me_, hello.from, hello.link, hello.stripe, stripes, hello.serial,
                         options_.checksum},
               body);
  c.send_message(body);
  hub_.touch(c);
}

// Both ends dial at once: the larger id's dial wins, so that both keep the same one; but not for ever, it may
// be that only the other end can reach this one.
bool Links::own_dial_first(PeerId from) const {
  if (me_ < from) return false;
  const auto now = monotonic_now();
  if (const auto own = dialling_.find(from);
      own != dialling_.end() && now - own->second.since < own_dial_wins)
    return true;
  const auto it = up_.find(from);  // it crossed the dial that made this link
  return it != up_.end() && it->second.dialled && now - it->second.since < own_dial_wins;
}

bool Links::on_hello(net::Connection& c, Role& role, const LinkHello& hello) {
  if (run_ == 0 || hello.run != run_ || hello.to != me_ || hello.from == me_ || hello.from == no_peer)
    return false;
  if (hello.kind != HelloKind::open || hello.stripe >= limits::stripes_max) return false;
  const auto it = up_.find(hello.from);
  if (it != up_.end() && it->second.number == hello.link && !it->second.dialled)
    return take_stripe(c, role, hello, it->second);
  if (hello.serial != 0) {
    answer(c, hello, HelloKind::unknown, 0);
    c.close_when_sent({ErrorCode::closed, "it belongs to a link that is gone"});
    return true;
  }
  if (hello.stripe != 0 || own_dial_first(hello.from)) return false;
  answer(c, hello, HelloKind::taken, 1);
  role.peer = hello.from;
  role.number = hello.link;
  c.trust();
  forget_dialling(hello.from, replaced);
  Link link;
  link.number = hello.link;
  link.checksum = options_.checksum || hello.checksum;
  establish(hello.from, std::move(link), c);
  return true;
}

bool Links::on_answer(net::Connection& c, Role& role, const LinkHello& hello) {
  if (hello.from != role.peer || hello.link != role.number) return false;
  const auto it = dialling_.find(role.peer);
  if (it == dialling_.end() || it->second.connection != &c) return stripe_answered(c, role, hello);
  if (hello.kind != HelloKind::taken) return false;
  Link link;
  link.number = role.number;
  link.dialled = true;
  link.checksum = options_.checksum || hello.checksum;
  link.address = it->second.address;
  dialling_.erase(it);
  establish(role.peer, std::move(link), c);
  return true;
}

void Links::establish(PeerId peer, Link link, net::Connection& c) {
  if (const auto it = up_.find(peer); it != up_.end()) {
    auto old = std::exchange(it->second, Link{});
    drop(old, replaced);
  }
  auto& now = up_[peer] = std::move(link);
  now.since = monotonic_now();
  now.stripes.resize(1);
  attach(now, c, roles_.at(&c));
  const auto measured = net::path_of(c.socket());
  now.path = measured.same_host ? Path::host : net::is_near(measured) ? Path::lan : Path::wan;
  want(peer, now, wanted_by(now, advised_bandwidth_, measured.rtt));
  owner_.link_up(peer);
}

// ---- closing ----

// Forget the roles first: closing calls back, and these closings are nobody's loss.
void Links::drop(Link& link, const Error& why) {
  const auto stripes = std::exchange(link.stripes, {});
  for (const auto& stripe : stripes)
    for (auto* c : {stripe.connection, stripe.opening}) roles_.erase(c);
  for (const auto& stripe : stripes)
    for (auto* c : {stripe.connection, stripe.opening})
      if (c != nullptr) c->close(why);
}

void Links::hang_up(PeerId peer) {
  if (const auto it = up_.find(peer); it != up_.end()) {
    auto link = std::move(it->second);
    up_.erase(it);
    drop(link, hung_up);
  }
  forget_dialling(peer, hung_up);
}

void Links::close_all() {
  resolver_.close();
  std::vector<net::Connection*> all;
  for (auto& [c, role] : roles_) all.push_back(c);
  roles_.clear();
  up_.clear();
  dialling_.clear();
  for (auto* c : all) c->close({ErrorCode::closed, "closed"});
}

void Links::on_closed(net::Connection& c, const Error& why) {
  owner_.stripe_closed(c);
  strangers_.left(&c);
  const auto it = roles_.find(&c);
  const auto role = it == roles_.end() ? Role{} : it->second;
  if (it != roles_.end()) roles_.erase(it);
  hub_.retire(c);
  if (role.peer == no_peer) return;
  if (link_of(role) == nullptr) return dial_closed(role.peer, c, why);
  if (role.attached) return stripe_ended(role, c, why);
  opening_ended(role, c, why);
}

void Links::tick(Instant now) {
  stranger_log_.tick(now);
  std::vector<net::Connection*> late;
  for (auto& [c, role] : roles_)
    if (!role.attached && now - role.since > hello_timeout) late.push_back(c);
  for (auto* c : late)
    if (roles_.contains(c)) c->close({ErrorCode::timeout, "it did not say hello within 5 s"});
  for (auto& [peer, link] : up_) look_at(peer, link);
}

}  // namespace pccl
