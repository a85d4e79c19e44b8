// What a peer says to the master that is none of its business, or not so.
#include "court.hpp"

namespace pccl::hostile {
namespace {

TEST(operations_of_others) {
  const auto put_out = [](ToMaster message) {
    Court court;
    court.admit(1, join_of("a"));
    court.admit(2, join_of("b", 1));
    court.admit(3, join_of("c", 2));
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

// Each master has the peers of its role; the others' are somebody else's.
TEST(peers_of_another_role) {
  for (const auto role : {Role::trainer, Role::keeper}) {
    MasterConfig config;
    config.role = role;
    Court court(config);
    for (const auto other : {Role::keeper, Role::trainer}) {
      auto join = join_of(name(other));
      join.role = other;
      const auto peer = court.admit(ConnectionId(other), join);
      CHECK_EQ(peer != no_peer && court.is_member(peer), other == role);
      if (peer != no_peer) CHECK_EQ(peer, first_peer(role));
    }
    REQUIRE(court.refusals.size() == 1);
    CHECK(court.refusals[0].text.find(role == Role::keeper
                                          ? "a trainer among the keepers of the run"
                                          : "a keeper among the trainers of the run") != std::string::npos);
  }
}

// Nobody hears when these have ended, and they are not kept.
TEST(a_peer_alone_offers_as_many_states_as_it_likes) {
  Court court;
  court.admit(1, join_of("a"));
  for (std::uint32_t i = 0; i < 4 * limits::offers_open_max; ++i)
    court.say(1,
              StateOffer{
                  court.master.view().id, {Scope::group, 0, {0, 0, i}}, 0, 0, Strategy::enforce_popular, {}});
  CHECK(court.is_member(court.peers.at(1)));
}

TEST(a_failure_has_a_reason) {
  Court court;
  court.admit(1, join_of("a"));
  REQUIRE(court.is_member(court.peers.at(1)));
  court.say(1, Abandon{{Scope::group, 0, {0, 0, 0}}, ErrorCode::none, ""});
  CHECK(!court.is_member(court.peers.at(1)));
}

Register at_the_door(PeerId peer, const std::string& island) {
  auto registration = registration_of(peer);
  registration.join = join_of(island);
  return registration;
}

// Only a predecessor gave numbers that are seated again: none that this master will give, or has given.
TEST(the_number_of_the_next_peer) {
  for (const auto& island : {"b", "peer-9"}) {
    Court court;
    court.admit(1, join_of("a"));
    court.say(2, at_the_door(court.peers.at(1) + 1, island));
    CHECK(court.closed(2));
    CHECK(court.admit(3, join_of("c")) == court.peers.at(1) + 1);
    court.say(1, EnterBoundary{court.master.view().id, 1});
    CHECK(court.master.view().members.size() == 2);
  }
}

// A second restart before the first view: who waits at the door knows of the first one by its number alone.
TEST(numbers_after_two_restarts) {
  Court court(restarted());
  const PeerId before = (PeerId{1} << 32) + 1;
  auto waiting = at_the_door(before, "a");
  waiting.join.min_islands = 2;
  court.say(1, waiting);
  court.pass(3 * second);
  CHECK(!court.closed(1));
  CHECK(court.admit(2, join_of("b")) != before);
}

// What a registrant says about the last view becomes the view of all: it must be one.
TEST(views_that_nobody_made) {
  const auto run_with = [](const View& view) {
    Court court(restarted());
    auto registration = registration_of(5);
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
  Court court(restarted());
  court.say(1, join_of("a"));
  court.say(1, registration_of(5));
  CHECK(court.closed(1));
  court.say(2, join_of("b"));
  court.pass(3 * second);
  CHECK(court.peers.contains(2));
  CHECK(!court.peers.contains(1));
}

}  // namespace
}  // namespace pccl::hostile
