// Which links a session opens, and when it stops trying.
#include <algorithm>
#include <string>

#include "check.hpp"
#include "protocol/session.hpp"

namespace pccl {

namespace {

Member member(PeerId peer, Role role = Role::trainer) {
  return {peer, "peer-" + std::to_string(peer), 0, 0, role, {{"host", std::uint16_t(peer)}}};
}

// A session that a master has let in, in a run of so many peers, with ids from 1.
struct Peer {
  explicit Peer(PeerId me, PeerId peers, Role role = Role::trainer) : session(join(role), Timing{}) {
    session.on_master_up(now);
    hear(Welcome{me, 7, 0, 500, "peer-" + std::to_string(me)});
    view.id = {0, 1};
    for (PeerId peer = 1; peer <= peers; ++peer) view.members.push_back(member(peer, role));
    hear(ViewMessage{view, ""});
  }
  void hear(const ToPeer& message) { session.on(message, now); }
  static Join join(Role role) {
    Join join;
    join.role = role;
    return join;
  }
  // Whom it dials, within so long, when every attempt fails.
  std::vector<PeerId> dials(Duration time) {
    std::vector<PeerId> all;
    for (const auto until = now + time; now <= until; now += millisecond) {
      hear(Pulse{0, {}});
      session.tick(now);
      for (auto& effect : session.take_effects()) {
        const auto* dial = std::get_if<effect::Dial>(&effect);
        if (dial == nullptr) continue;
        all.push_back(dial->peer);
        session.on_dial_failed(dial->peer, false, "no route", now);
      }
    }
    return all;
  }
  void sync_state() {
    Posting posting;
    posting.descriptor.call = Call::sync_state;
    REQUIRE(bool(session.post(posting, now)));
  }

  Instant now = 1000 * second;
  View view;
  Session session;
};

}  // namespace

TEST(neighbours_are_dialled_by_the_later_one) {
  Peer peer(3, 5);
  const auto dialled = peer.dials(100 * millisecond);
  CHECK(std::ranges::count(dialled, PeerId{2}) >= 3);
  CHECK_EQ(std::ranges::count(dialled, PeerId{4}), 0);  // peer 4 came later: it is its turn
}

TEST(a_neighbour_that_does_not_dial_is_dialled) {
  Peer peer(3, 5);
  for (const PeerId neighbour : {2, 4}) peer.session.on_link_up(neighbour, peer.now);
  peer.view.id.number = 2;
  std::erase_if(peer.view.members, [](const Member& m) { return m.peer == 4; });
  peer.hear(ViewMessage{peer.view, ""});
  CHECK(!peer.dials(second).empty());  // peer 5 believes in an old link, say, and nobody here knows of it
}

TEST(donors_are_dialled_as_long_as_something_is_fetched) {
  Peer peer(3, 6);
  for (const PeerId neighbour : {2, 4}) peer.session.on_link_up(neighbour, peer.now);
  peer.sync_state();
  peer.session.want_link(6, peer.now);
  CHECK(peer.dials(second).size() > 10);
  const auto key = peer.session.operations().begin()->first;
  peer.hear(Failed{1, {key, peer.view.id, ErrorCode::cancelled, 0, false, {}, "enough"}});
  CHECK(peer.dials(5 * second).empty());
}

TEST(a_new_view_forgets_donors) {
  Peer peer(3, 6);
  for (const PeerId neighbour : {2, 4}) peer.session.on_link_up(neighbour, peer.now);
  peer.sync_state();
  peer.session.want_link(6, peer.now);
  peer.view.id.number = 2;
  peer.hear(ViewMessage{peer.view, ""});
  (void)peer.session.take_effects();
  peer.session.on_dial_failed(6, false, "no route", peer.now);
  CHECK(peer.dials(5 * second).empty());
}

TEST(former_neighbours_are_not_dialled_again) {
  Peer peer(3, 5);
  for (const PeerId neighbour : {2, 4}) peer.session.on_link_up(neighbour, peer.now);
  peer.view.id.number = 2;
  peer.view.order = {3, 1, 5, 2, 4};  // between 4 and 1 now
  peer.hear(ViewMessage{peer.view, ""});
  peer.session.on_link_up(1, peer.now);
  (void)peer.session.take_effects();
  peer.session.on_link_down(2, false, "reset", peer.now);
  CHECK(peer.dials(5 * second).empty());
}

// For how long nobody needed a link says nothing about it.
TEST(an_old_loss_is_no_reason_to_give_up) {
  Peer peer(3, 5);
  for (const PeerId neighbour : {2, 4}) peer.session.on_link_up(neighbour, peer.now);
  peer.view.id.number = 2;
  peer.view.order = {3, 1, 5, 2, 4};
  peer.hear(ViewMessage{peer.view, ""});
  peer.session.on_link_up(1, peer.now);
  peer.session.on_link_down(2, false, "reset", peer.now);
  (void)peer.dials(60 * second);
  peer.view.id.number = 3;
  peer.view.order.clear();
  peer.hear(ViewMessage{peer.view, ""});
  peer.session.tick(peer.now);
  for (const auto& effect : peer.session.take_effects())
    if (const auto* send = std::get_if<effect::SendMaster>(&effect))
      CHECK(!std::holds_alternative<LinkLost>(send->message));
}

TEST(keepers_have_a_ring_of_their_own) {
  Peer peer(3, 5, Role::keeper);
  CHECK(peer.session.stage() == Session::Stage::member);
  CHECK(!peer.dials(5 * second).empty());
  CHECK(bool(peer.session.post({}, peer.now)));
}

// Peers of another role are in no view: who is told otherwise has no honest master.
TEST(a_view_of_two_roles_ends_it) {
  Peer peer(1, 2);
  peer.view.id.number = 2;
  peer.view.members.push_back(member(1'000'001, Role::keeper));
  peer.hear(ViewMessage{peer.view, ""});
  CHECK(peer.session.stage() == Session::Stage::gone);
  CHECK_EQ(peer.session.end().text, "the master sent a view that names a peer twice, or peers of two roles");
}

}  // namespace pccl
