// A master that was stopped for a while does not take its own silence for that of its peers.
#include "court.hpp"

namespace pccl::hostile {

namespace {

struct Run : Court {
  Run() {
    for (ConnectionId c = 1; c <= 3; ++c) {
      auto join = join_of("island" + std::to_string(c));
      join.min_islands = 3;
      admit(c, join);
    }
    REQUIRE(master.view().members.size() == 3);
  }
  // The first turn after it; what peers have said meanwhile is read before the next.
  void pause() {
    now += 10 * second;
    master.tick(now);
  }
};

}  // namespace

TEST(its_own_pause_is_nobody_s_silence) {
  Run run;
  run.pause();
  for (ConnectionId c = 1; c <= 3; ++c) run.say(c, Heartbeat{});
  run.pass(0);
  CHECK_EQ(run.master.view().members.size(), 3);
}

TEST(who_stays_silent_after_a_pause_is_lost) {
  Run run;
  run.pause();
  for (ConnectionId c = 1; c <= 2; ++c) run.say(c, Heartbeat{});
  run.pass(0);
  CHECK_EQ(run.master.view().members.size(), 2);
}

}  // namespace pccl::hostile
