// Calls that nobody answers: who may make one, and what ends it.
#include "household.hpp"

namespace pccl::hostile {
namespace {

// Nobody has to agree that it is over.
TEST(time_outs_of_a_peer_alone) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Household home(seed);
    home.enter(3);
    Descriptor sync;
    sync.call = Call::sync_state;  // it stays open: nobody elects anything
    for (int i = 0; i < 3; ++i) REQUIRE(home.post(sync).has_value());
    home.change_view(
        [](View& view) { std::erase_if(view.members, [](const Member& m) { return m.peer != 2; }); });
    for (int i = 0; i < 10; ++i) {
      home.now += 300 * millisecond;
      home.hear(Pulse{0, {}});
      home.session.tick(home.now);
      home.drain();
    }
    CHECK_EQ(home.delivered + home.open.size(), 3);
    for (const auto& key : std::set(home.open)) CHECK(home.session.find(key)->deadline == never);
  }
}

// They have operations of their own.
TEST(keepers_post_as_trainers_do) {
  auto join = join_of("me");
  join.role = Role::keeper;
  Household home(1, join);
  home.enter(3);
  CHECK(home.post(reduce(10)).has_value());
}

}  // namespace
}  // namespace pccl::hostile
