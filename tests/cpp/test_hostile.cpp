// Valid messages that no honest peer would send, in any order and from anybody: whoever hears them goes on,
// within bounds.
#include <algorithm>
#include <set>

#include "allocated.hpp"
#include "check.hpp"
#include "generate.hpp"
#include "protocol/master.hpp"
#include "runtime/exchange.hpp"

namespace pccl {
namespace {

using check::allocated_bytes;
using check::Generate;

constexpr std::size_t mebibyte = 1u << 20;

template <class Variant, class M> void check_encodes(const M& message) {
  Bytes bytes;
  wire::encode(message, bytes);
  CHECK(bytes.size() <= limits::message_bytes_max);
  CHECK(wire::decode<Variant>(bytes).has_value());
}

Join join_of(const std::string& island, std::uint32_t group = 0) {
  Join join;
  join.island = island;
  join.group = group;
  join.reachable_at = {{"127.0.0.1", 1}};
  return join;
}

// ---- the master ----

// A master and whoever is connected to it. What it says is kept by connection, and Close is carried out.
class Court {
 public:
  explicit Court(MasterConfig config = {}) : master(std::move(config), 0) {}

  void say(ConnectionId from, const ToMaster& message) {
    if (closed_.contains(from)) return;
    master.on(from, message, now);
    settle();
  }
  void hang_up(ConnectionId connection) {
    if (closed_.insert(connection).second) master.on_closed(connection, now);
    settle();
  }
  void pass(Duration time) {
    now += time;
    for (int ticks = 0; ticks == 0 || master.next_deadline() <= now; ++ticks) {
      REQUIRE(ticks < 5);  // it would be busy for ever
      master.tick(now);
      settle();
    }
  }
  // The peer that this connection was let in as; every question of the master is answered as an honest peer
  // does.
  PeerId admit(ConnectionId connection, const Join& join) {
    say(connection, join);
    return peers.contains(connection) ? peers.at(connection) : no_peer;
  }
  bool is_member(PeerId peer) const { return master.view().find(peer) != nullptr; }
  bool closed(ConnectionId connection) const { return closed_.contains(connection); }

  Master master;
  Instant now = 0;
  std::map<ConnectionId, PeerId> peers;
  bool honest = true;

 private:
  void settle() {
    for (auto effects = master.take_effects(); !effects.empty(); effects = master.take_effects())
      for (auto& e : effects) {
        if (auto* send = std::get_if<master_effect::Send>(&e))
          heard(*send);
        else if (auto* close = std::get_if<master_effect::Close>(&e))
          if (closed_.insert(close->connection).second) master.on_closed(close->connection, now);
      }
    std::set<PeerId> seen;
    for (const auto& member : master.view().members) CHECK(seen.insert(member.peer).second);
  }
  void heard(const master_effect::Send& send) {
    check_encodes<ToPeer>(send.message);
    if (const auto* welcome = std::get_if<Welcome>(&send.message)) peers[send.to] = welcome->peer;
    if (const auto* prove = std::get_if<Prove>(&send.message);
        prove != nullptr && honest && !closed_.contains(send.to))
      master.on(send.to, Reachable{prove->round, {}, {}}, now);
  }

  std::set<ConnectionId> closed_;
};

// Names that exist, so that random messages mean something.
void know(Generate& generate, Rng& rng, const View& view) {
  generate.views = {view.id, {view.id.incarnation, view.id.number + 1}, {view.id.incarnation + 1, 0}};
  generate.numbers = {0,
                      1,
                      2,
                      3,
                      ~std::uint64_t{0},
                      view.boundaries,
                      view.boundaries + 1u,
                      view.id.number,
                      view.id.incarnation};
  for (const auto& member : view.members) generate.numbers.push_back(member.peer);
  generate.keys.clear();
  for (int i = 0; i < 6; ++i)
    generate.keys.push_back({static_cast<Scope>(1 + rng.below(2)),
                             std::uint32_t(rng.below(2)),
                             {view.boundaries, std::uint32_t(rng.below(2)), std::uint32_t(rng.below(3))}});
}

TEST(masters_hear_anything) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    Rng rng(seed);
    MasterConfig config;
    config.restarted = rng.chance(0.3);
    if (config.restarted && rng.chance(0.5)) config.run = 0;
    if (config.restarted && rng.chance(0.3)) {
      Generate stored(rng);
      config.stored = Stored{3, {}};
      config.stored->view.id = {3, 7};
      config.stored->view.members.push_back({5, "a", 0, 0, Role::trainer, {{"127.0.0.1", 1}}});
    }
    Court court(std::move(config));
    ConnectionId last = 0;
    std::size_t members_most = 0;
    for (int i = 0; i < 700; ++i) {
      Generate generate(rng);
      know(generate, rng, court.master.view());
      court.honest = rng.chance(0.9);
      if (last < 3 || rng.chance(0.08)) {
        auto join = join_of(rng.chance(0.5) ? "" : std::string(1, char('a' + rng.below(6))),
                            std::uint32_t(rng.below(2)));
        join.role = rng.chance(0.2) ? Role::keeper : Role::trainer;
        join.island_size = std::uint16_t(1 + rng.below(2));
        join.island_rank = std::uint16_t(rng.below(join.island_size));
        court.say(++last, join);
        continue;
      }
      const ConnectionId from = 1 + rng.below(last);
      auto message = generate.message<ToMaster>();
      if (auto* registration = std::get_if<Register>(&message)) {
        if (rng.chance(0.8)) registration->run = 1;
        if (rng.chance(0.4) && court.peers.contains(from))
          registration->peer = court.peers.at(from), registration->view = court.master.view();
        court.say(++last, message);
      } else {
        court.say(from, message);
      }
      if (rng.chance(0.03)) court.hang_up(1 + rng.below(last));
      if (rng.chance(0.1)) court.pass(Duration(rng.below(rng.chance(0.05) ? 3 * second : 20 * millisecond)));
      members_most = std::max(members_most, court.master.view().members.size());
    }
    CHECK(members_most <= std::size_t(last));
  }
}

// An honest pair and a third, who talks without end: it is put out, or costs nothing; the pair stays and can
// work.
template <class F> void flood(F next_message, std::size_t messages, std::size_t bytes_most) {
  Court court;
  const auto a = court.admit(1, join_of("a")), b = court.admit(2, join_of("b"));
  const auto c = court.admit(3, join_of("c"));
  for (const auto peer : {a, b, c}) REQUIRE(peer != no_peer);
  for (ConnectionId i = 1; i <= 3; ++i)
    court.say(i, EnterBoundary{court.master.view().id, court.master.view().boundaries + 1});
  REQUIRE(court.is_member(a) && court.is_member(b) && court.is_member(c));
  const auto before = allocated_bytes();
  std::size_t most = 0;
  for (std::size_t i = 0; i < messages && !court.closed(3); ++i) {
    court.say(3, next_message(i, court.master.view()));
    if (i % 64 == 0) most = std::max(most, allocated_bytes());
  }
  CHECK(most <= before + bytes_most);
  REQUIRE(court.is_member(a) && court.is_member(b));
  court.hang_up(3);
  court.pass(second);
  for (ConnectionId i = 1; i <= 2; ++i) court.say(i, Heartbeat{0});
  court.pass(second);
  for (ConnectionId i = 1; i <= 2; ++i) court.say(i, Heartbeat{0});
  court.pass(second);
  REQUIRE(court.is_member(a) && court.is_member(b) && !court.is_member(c));
}

OpKey nth_key(std::size_t i, const View& view) {
  return {Scope::group, 0, {view.boundaries, 1, std::uint32_t(i)}};
}

TEST(a_flood_of_votes) {
  flood([](std::size_t i, const View& view) -> ToMaster { return Done{view.id, nth_key(i, view), 0}; },
        20'000, 4 * mebibyte);
}

TEST(a_flood_of_offers) {
  flood(
      [](std::size_t i, const View& view) -> ToMaster {
        StateOffer offer;
        offer.view = view.id;
        offer.key = nth_key(i, view);
        offer.entries.resize(5000);
        return offer;
      },
      200, 8 * mebibyte);
}

TEST(a_flood_of_waiting) {
  flood(
      [](std::size_t i, const View& view) -> ToMaster {
        Waiting waiting{view.id, false, false, {}};
        for (std::size_t k = 0; k < 1000; ++k)
          waiting.calls.push_back({nth_key(1000 * i + k, view), Call::barrier, false});
        return waiting;
      },
      20, 8 * mebibyte);
}

TEST(a_flood_of_abandoned_calls) {
  flood([](std::size_t i,
           const View& view) -> ToMaster { return Abandon{nth_key(i, view), ErrorCode::cancelled, "x"}; },
        60'000, 16 * mebibyte);
}

TEST(a_flood_of_lost_links) {
  flood(
      [](std::size_t i, const View& view) -> ToMaster {
        return LinkLost{view.id, view.members[i % view.members.size()].peer, true, false,
                        std::string(4096, 'x')};
      },
      5000, mebibyte);
}

TEST(a_flood_of_registrations) {
  MasterConfig config;
  config.restarted = true;
  Court court(std::move(config));
  const auto before = allocated_bytes();
  for (std::uint64_t i = 1; i <= limits::members_max + 5000; ++i) {
    Register registration;
    registration.peer = i;
    registration.run = 1;
    court.say(i, registration);
    court.hang_up(i);
  }
  CHECK(allocated_bytes() <= before + 80 * mebibyte);
}

TEST(operations_of_others) {
  const auto put_out = [](ToMaster message) {
    Court court;
    auto keeper = join_of("k");
    keeper.role = Role::keeper;
    court.admit(1, join_of("a"));
    court.admit(2, join_of("b", 1));
    court.admit(3, keeper);
    const auto first = court.master.view().id;
    court.say(1, EnterBoundary{first, 1});
    const auto view = court.master.view();
    if (view.members.size() != 3) return false;
    for (const ConnectionId from : {2, 3}) {
      std::visit(
          [&](auto& m) {
            if constexpr (requires { m.view = view.id; }) m.view = court.master.view().id;
          },
          message);
      court.say(from, message);
    }
    return !court.is_member(court.peers.at(2)) && !court.is_member(court.peers.at(3)) &&
           court.is_member(court.peers.at(1));
  };
  const OpKey key{Scope::group, 0, {1, 0, 0}};
  CHECK(put_out(Done{{}, key, 0}));
  CHECK(put_out(Abandon{key, ErrorCode::cancelled, ""}));
  CHECK(put_out(StateOffer{{}, key, 0, 0, Strategy::enforce_popular, {}}));
  CHECK(put_out(Waiting{{}, true, false, {{key, Call::barrier, false}}}));
}

TEST(a_failure_has_a_reason) {
  Court court;
  court.admit(1, join_of("a"));
  REQUIRE(court.is_member(court.peers.at(1)));
  court.say(1, Abandon{{Scope::group, 0, {0, 0, 0}}, ErrorCode::none, ""});
  CHECK(!court.is_member(court.peers.at(1)));
}

// What a registrant says about the last view becomes the view of all: it must be one.
TEST(views_that_nobody_made) {
  const auto run_with = [](const View& view) {
    MasterConfig config;
    config.restarted = true;
    Court court(std::move(config));
    Register registration;
    registration.peer = 5;
    registration.run = 1;
    registration.view = view;
    court.say(1, registration);
    court.pass(3 * second);
    court.say(2, join_of("new"));
    court.say(2, Heartbeat{});
    court.pass(3 * second);
    court.pass(3 * second);
    return court.closed(1);
  };
  View view;
  view.id = {1, 4};
  view.members = {{5, "a", 0, 0, Role::trainer, {{"h", 1}}}};
  auto twice = view, nobody = view, last = view, future = view, boundaries = view;
  twice.members.push_back({5, "b", 0, 0, Role::trainer, {{"h", 1}}});
  nobody.members.push_back({0, "b", 0, 0, Role::trainer, {{"h", 1}}});
  last.id.incarnation = UINT32_MAX;
  future.members.push_back({(PeerId{2} << 32) + 1, "b", 0, 0, Role::trainer, {{"h", 1}}});
  boundaries.boundaries = UINT32_MAX;
  for (const auto& wrong : {twice, nobody, last, future, boundaries}) CHECK(run_with(wrong));
}

TEST(two_introductions_while_the_master_listens) {
  MasterConfig config;
  config.restarted = true;
  Court court(std::move(config));
  court.say(1, join_of("a"));
  Register registration;
  registration.peer = 5;
  registration.run = 1;
  court.say(1, registration);
  CHECK(court.closed(1));
  court.say(2, join_of("b"));
  court.pass(3 * second);
  CHECK(court.peers.contains(2));
  CHECK(!court.peers.contains(1));
}

// ---- a peer ----

// A session and its exchange, with everything that they ask for done at once or not at all.
class Household {
 public:
  Household(std::uint64_t seed, Join join)
      : rng(seed), session(std::move(join), Timing{}), exchange(session, {}, {4096, 4, 2}) {
    session.on_master_up(now);
    drain();
  }

  void hear(const ToPeer& message) {
    session.on(message, now);
    drain();
  }
  void enter(std::uint32_t peers, std::uint32_t number = 1) {
    hear(Welcome{2, 1, 0, 500, "me"});
    View view;
    view.id = {0, number};
    for (std::uint32_t p = 1; p <= peers; ++p) {
      Member member;
      member.peer = p;
      member.island = std::string(1, char('a' + p));
      if (p == 2) member.role = session.identity().role;
      member.reachable_at = {{"127.0.0.1", 1}};
      view.members.push_back(member);
    }
    hear(ViewMessage{view, ""});
    for (const PeerId peer : {1, 3})
      if (peer <= peers) session.on_link_up(peer, now), exchange.on_link_up(peer), drain();
  }
  std::optional<OpKey> post(Descriptor descriptor, std::uint32_t name = 0, bool in_place = false) {
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

  void drain() {
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

  // Data from a peer, begun; its bytes come later or never.
  void frame(PeerId from, const wire::DataHeader& header) {
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
  void finish_one() {
    if (arriving.empty()) return;
    const auto at = arriving.begin() + std::ptrdiff_t(rng.below(arriving.size()));
    const auto [header, slot] = *at;
    arriving.erase(at);
    exchange.arrived(header, slot);
    drain();
  }

  Rng rng;
  Instant now = 1000;
  Session session;
  Exchange exchange;
  std::set<OpKey> open;
  std::map<ParkedId, std::pair<PeerId, wire::DataHeader>> parked;
  struct Arriving {
    wire::DataHeader header;
    SlotId slot;
  };
  std::vector<Arriving> arriving;
  std::vector<PeerId> dialled;
  std::size_t delivered = 0;
  bool gone = false;

 private:
  void forget_arriving(const OpKey& key) {
    std::erase_if(arriving, [&](const Arriving& a) { return a.header.key == key; });
  }
  void apply(effect::SendMaster& e) { check_encodes<ToMaster>(e.message); }
  void apply(effect::ReconnectMaster&) {}
  void apply(effect::Dial& e) { dialled.push_back(e.peer); }
  void apply(effect::HangUp&) {}
  void apply(effect::DropAttempt& e) {
    forget_arriving(e.key);
    exchange.drop(e.key);
    held_.erase(e.key);
  }
  void apply(effect::StartAttempt& e) {
    if (states_.contains(e.key)) {
      StateOffer offer;
      offer.entries.resize(2);
      return session.offer_state(e.key, session.view().id, offer);
    }
    exchange.begin(e.key, in_place_.contains(e.key));
  }
  void apply(effect::ViewChanged&) { exchange.view_changed(); }
  void apply(effect::Deliver& e) {
    CHECK_EQ(open.erase(e.key), 1);
    if (e.outcome.error.code == ErrorCode::none)
      CHECK(held_.contains(e.key));  // success is what this peer holds
    forget_arriving(e.key);
    exchange.drop(e.key);
    ++delivered;
  }
  void apply(effect::Elected& e) {
    CHECK_EQ(e.plan.entries.size(), 2);
    complete(e.plan.key);
  }
  void apply(effect::Admitted&) {}
  void apply(effect::BoundaryPassed&) {}
  void apply(effect::BoundaryFailed& e) { CHECK(e.why.code != ErrorCode::none); }
  void apply(effect::Gone& e) {
    CHECK(e.why.code != ErrorCode::none);
    gone = true;
  }
  void apply(effect::Notice&) {}
  void apply(exchange_effect::SendReady& e) { check_encodes<BetweenPeers>(e.ready); }
  void apply(exchange_effect::Do& e) { CHECK(e.key.tag.count != UINT32_MAX); }
  void apply(exchange_effect::Wake&) {}
  void apply(exchange_effect::Complete& e) { complete(e.key); }
  void apply(exchange_effect::Mismatch& e) { session.abandon(e.key, ErrorCode::mismatch, e.text, now); }
  void apply(exchange_effect::Replay& e) {
    const auto node = parked.extract(e.parked);
    REQUIRE(!node.empty());
    frame(node.mapped().first, node.mapped().second);
  }
  void apply(exchange_effect::Discard& e) { CHECK_EQ(parked.erase(e.parked), 1); }
  void complete(const OpKey& key) {
    held_.insert(key);
    session.attempt_complete(key, now);
  }

  std::set<OpKey> in_place_, states_, held_;
  SlotId last_slot_ = 0;

 public:
  // Every dial fails or succeeds in the end.
  void answer_dials() {
    for (const auto peer : std::exchange(dialled, {})) {
      if (rng.chance(0.4))
        session.on_link_up(peer, now), exchange.on_link_up(peer);
      else
        session.on_dial_failed(peer, rng.chance(0.5), "no", now);
      drain();
    }
  }
};

Descriptor reduce(std::uint64_t count, DType dtype = DType::float32) {
  Descriptor d;
  d.call = Call::all_reduce;
  d.tensors = {{dtype, count}};
  return d;
}

Descriptor random_operation(Rng& rng) {
  Descriptor d = reduce(rng.below(20'000), static_cast<DType>(1 + rng.below(4)));
  d.call = static_cast<Call>(1 + rng.below(4));
  d.weighted = d.call == Call::all_reduce && rng.chance(0.3);
  d.on_loss = static_cast<OnLoss>(1 + rng.below(2));
  d.root = 1 + rng.below(3);
  if (d.call == Call::barrier || d.call == Call::sync_state) d.tensors.clear();
  return d;
}

wire::DataHeader random_frame(Household& home, Generate& generate) {
  auto& rng = home.rng;
  wire::DataHeader header;
  generate(header.view);
  generate(header.key);
  const auto* attempt = home.exchange.find(header.key);
  header.fingerprint =
      attempt != nullptr && rng.chance(0.95) ? attempt->fingerprint : std::uint32_t(rng.next());
  header.step = std::uint16_t(rng.below(6));
  header.bytes = std::uint32_t(rng.below(limits::chunk_bytes_max + 1));
  if (attempt == nullptr || attempt->executor == nullptr) return header;
  const auto& layout = attempt->executor->layout();
  header.chunk = std::uint32_t(rng.below(layout.chunks() + 2));
  const auto& steps = attempt->executor->plan().steps;
  if (header.step < steps.size() && header.chunk < layout.chunks() && rng.chance(0.95))
    header.bytes = attempt->executor->chunk_bytes(header.chunk, steps[header.step].in);
  return header;
}

void hostile_link(Household& home, Generate& generate) {
  auto& rng = home.rng;
  const PeerId from = rng.chance(0.9) ? 1 + 2 * rng.below(2) : rng.below(6);
  switch (rng.below(5)) {
    case 0: {
      auto ready = generate.value<Ready>();
      const auto* attempt = home.exchange.find(ready.key);
      if (attempt != nullptr && rng.chance(0.8)) ready.descriptor = attempt->descriptor;
      CHECK(home.exchange.on_ready(from, ready));
      break;
    }
    case 1:
      home.finish_one();
      break;
    case 2:
      if (const auto outgoing = home.exchange.next(from)) {
        CHECK(outgoing->header.bytes <= limits::chunk_bytes_max);
        home.exchange.sent(*outgoing);
      }
      break;
    default:
      home.frame(from, random_frame(home, generate));
  }
  home.drain();
}

void local_event(Household& home) {
  auto& rng = home.rng;
  const PeerId peer = rng.below(5);
  switch (rng.below(10)) {
    case 0:
      home.session.on_link_up(peer, home.now);
      home.exchange.on_link_up(peer);
      break;
    case 1:
      home.session.on_link_down(peer, rng.chance(0.3), "cut", home.now);
      break;
    case 2:
      home.session.on_dial_failed(peer, rng.chance(0.3), "no", home.now);
      break;
    case 3:
      (void)home.session.enter_boundary(std::uint32_t(rng.below(3)), rng.chance(0.5) ? never : second,
                                        home.now);
      break;
    case 4:
      home.session.leave_boundary(home.now);
      break;
    case 5:
      if (!home.open.empty()) home.session.abandon(*home.open.begin(), ErrorCode::cancelled, "", home.now);
      break;
    case 6:
      if (rng.chance(0.1)) home.session.on_master_down(home.now, ""), home.session.on_master_up(home.now);
      break;
    case 7:
      if (!home.open.empty()) home.session.attempt_broken(*home.open.begin(), peer, "broken", home.now);
      break;
    case 8:
      home.answer_dials();
      break;
    default:
      home.now += Duration(rng.below(30 * millisecond));
      home.session.tick(home.now);
  }
  home.drain();
}

void know_home(Generate& generate, Household& home) {
  know(generate, home.rng, home.session.view());
  generate.numbers.push_back(2);  // itself
  for (const auto& key : home.open) generate.keys.push_back(key), generate.keys.push_back(key);
}

ToPeer message_for(Household& home, Generate& generate) {
  auto& rng = home.rng;
  auto message = generate.message<ToPeer>();
  const bool ends = std::holds_alternative<Refused>(message) || std::holds_alternative<Evicted>(message) ||
                    std::holds_alternative<Suspended>(message);
  if (ends && rng.chance(0.98)) return Pulse{std::uint32_t(rng.below(3))};
  if (auto* view = std::get_if<ViewMessage>(&message); view != nullptr && rng.chance(0.95)) {
    view->view.members = home.session.view().members;  // else it is over at once
    view->view.id = {home.session.view().id.incarnation,
                     home.session.view().id.number + std::uint32_t(rng.below(3))};
    if (rng.chance(0.2)) view->view.members.push_back(generate.value<Member>());
  }
  return message;
}

TEST(peers_hear_anything) {
  std::size_t delivered = 0, long_lives = 0;
  for (std::uint64_t seed = 1; seed <= 250; ++seed) {
    Join join = join_of("me");
    join.role = seed % 20 == 0 ? Role::keeper : Role::trainer;
    Household home(seed, join);
    if (seed % 10 != 0) home.enter(3);
    int i = 0;
    for (; i < 500 && !home.gone; ++i) {
      Generate generate(home.rng);
      know_home(generate, home);
      if (home.rng.chance(0.15))
        home.post(random_operation(home.rng), std::uint32_t(home.rng.below(3)), home.rng.chance(0.5));
      else if (home.rng.chance(0.5))
        hostile_link(home, generate);
      else if (home.rng.chance(0.5))
        local_event(home);
      else
        home.hear(message_for(home, generate));
    }
    long_lives += i > 100;
    home.session.leave(home.now);
    home.drain();
    CHECK(home.gone);
    CHECK(home.open.empty());  // every call came back, once
    CHECK(home.arriving.empty());
    delivered += home.delivered;
  }
  CHECK(delivered > 1000);
  CHECK(long_lives > 20);
}

TEST(a_commit_of_what_is_not_held) {
  for (const bool fails : {false, true}) {
    Household home(1, join_of("me"));
    home.enter(3);
    const auto key = home.post(reduce(10));
    REQUIRE(key.has_value());
    const Verdict verdict{*key, home.session.view().id, ErrorCode::none, 0, {}, ""};
    if (fails)
      home.hear(Failed{5, verdict});
    else
      home.hear(Commit{5, 0, verdict});
    CHECK_EQ(home.delivered, 1);  // with an error: Household looks
  }
}

// Nobody has to agree that it is over.
TEST(time_outs_of_a_peer_alone) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Household home(seed, join_of("me"));
    home.enter(3);
    Descriptor sync;
    sync.call = Call::sync_state;  // it stays open: nobody elects anything
    for (int i = 0; i < 3; ++i) REQUIRE(home.post(sync).has_value());
    View view = home.session.view();
    ++view.id.number;
    std::erase_if(view.members, [](const Member& m) { return m.peer != 2; });
    home.hear(ViewMessage{view, ""});
    for (int i = 0; i < 10; ++i) {
      home.now += 300 * millisecond;
      home.hear(Pulse{0});
      home.session.tick(home.now);
      home.drain();
    }
    CHECK_EQ(home.delivered + home.open.size(), 3);
    for (const auto& key : std::set(home.open)) CHECK(home.session.find(key)->deadline == never);
  }
}

TEST(keepers_post_nothing) {
  auto join = join_of("me");
  join.role = Role::keeper;
  Household home(1, join);
  home.enter(3);
  CHECK(!home.post(reduce(10)));
}

TEST(rings_are_permutations) {
  Household home(1, join_of("me"));
  home.enter(3);
  for (const auto& order :
       std::vector<std::vector<PeerId>>{{1, 1, 3}, {1, 2}, {2, 2, 2}, {7, 8, 9}, {3, 2, 1, 3}, {1, 3, 2}}) {
    auto view = home.session.view();
    ++view.id.number;
    view.order = order;
    home.hear(ViewMessage{view, ""});
    const auto ring = home.session.ring();
    CHECK_EQ(std::set(ring.begin(), ring.end()), (std::set<PeerId>{1, 2, 3}));
    CHECK_EQ(ring.size(), 3);
  }
  auto view = home.session.view();
  ++view.id.number;
  view.members.push_back(view.members.front());
  home.hear(ViewMessage{view, ""});
  CHECK(home.gone);
}

TEST(hints_that_make_no_sense) {
  for (const std::uint32_t chunk_bytes : {1u, 63u, 5000u, 0xffffffffu}) {
    Household home(1, join_of("me"));
    home.enter(3);
    auto view = home.session.view();
    ++view.id.number;
    view.hints = {Algorithm::two_level, chunk_bytes, 255};
    home.hear(ViewMessage{view, ""});
    const auto key = home.post(reduce(100'000));
    REQUIRE(key.has_value());
    const auto* attempt = home.exchange.find(*key);
    REQUIRE(attempt != nullptr);
    CHECK(attempt->descriptor.chunk_bytes >= limits::chunk_bytes_min);
    CHECK(attempt->descriptor.chunk_bytes <= limits::chunk_bytes_max / 2);
  }
}

TEST(plans_of_another_state) {
  Household home(1, join_of("me"));
  home.enter(3);
  Descriptor sync;
  sync.call = Call::sync_state;
  const auto key = home.post(sync);
  REQUIRE(key.has_value());
  StatePlan plan{home.session.view().id, *key, 0, {}};
  home.hear(plan);  // Household offers two entries, and looks at what is elected
  plan.entries.resize(3);
  home.hear(plan);
  plan.entries.resize(2);
  plan.entries[1].entry.count = 9;
  home.hear(plan);
  CHECK(home.session.find(*key)->state == OperationState::running);
  plan.entries[1].entry.count = 0;
  home.hear(plan);
  CHECK(home.session.find(*key)->state == OperationState::held);
}

// ---- what a peer keeps for later ----

TEST(parked_frames_are_bounded) {
  for (const std::uint32_t bytes : {0u, 1u, 4096u}) {
    Household home(1, join_of("me"));
    home.enter(3);
    wire::DataHeader header;
    header.view = {0, 1'000'000};
    header.bytes = bytes;
    for (std::uint32_t i = 0; i < 400'000 && home.exchange.may_park(1, bytes); ++i) {
      header.chunk = i;
      home.frame(1, header);
    }
    CHECK(!home.exchange.may_park(1, bytes));
    CHECK(home.exchange.may_park(3, limits::chunk_bytes_max));  // others have room all the same
    // What nobody can use any more goes: its sender has left, and no link to it is there.
    auto view = home.session.view();
    ++view.id.number;
    view.members.erase(view.members.begin());
    home.hear(ViewMessage{view, ""});
    CHECK(home.parked.empty());
    CHECK(home.exchange.may_park(1, bytes));
  }
}

TEST(parked_announcements_are_bounded) {
  Household home(1, join_of("me"));
  home.enter(3);
  const auto before = allocated_bytes();
  Ready ready;
  ready.view = {0, 1'000'000};
  ready.descriptor.tensors.resize(1000);
  std::uint32_t taken = 0;
  for (; taken < 100'000; ++taken) {
    ready.key.tag.count = taken;
    if (!home.exchange.on_ready(1, ready)) break;
  }
  CHECK(taken >= 1000);
  CHECK(taken <= limits::ready_tensors_max / 1000);
  CHECK(home.exchange.on_ready(3, ready));
  CHECK(allocated_bytes() <= before + 32 * mebibyte);
  ready.descriptor.tensors.clear();
  for (taken = 0; taken < 100'000; ++taken) {
    ready.key.tag.count = taken;
    if (!home.exchange.on_ready(3, ready)) break;
  }
  CHECK_EQ(taken, limits::operations_open_max);
}

TEST(proofs_without_end) {
  Household home(1, join_of("me"));
  home.hear(Welcome{2, 1, 0, 500, "me"});
  const auto before = allocated_bytes();
  Prove prove;
  for (std::uint32_t round = 1; round <= 2000; ++round) {
    prove.round = round;
    prove.targets.resize(limits::peers_named_max);
    for (auto& target : prove.targets) target.peer = 1000 + home.rng.next() / 2;
    home.hear(prove);
    for (const auto& target : prove.targets)
      home.session.on_dial_failed(target.peer, true, "nobody", home.now);
    home.drain();
    home.dialled.clear();
  }
  CHECK(allocated_bytes() <= before + mebibyte);
}

TEST(verdicts_without_end) {
  Household home(1, join_of("me"));
  home.enter(3);
  const auto before = allocated_bytes();
  for (std::uint32_t i = 1; i <= 60'000; ++i) {
    const Verdict verdict{
        {Scope::group, 0, {0, 1, i}}, home.session.view().id, ErrorCode::cancelled, 0, {}, "x"};
    home.hear(Failed{i, verdict});
  }
  CHECK(allocated_bytes() <= before + 16 * mebibyte);
}

}  // namespace
}  // namespace pccl
