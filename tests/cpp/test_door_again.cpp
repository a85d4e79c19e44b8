// Who waited at the door of a master that died, and comes to the next one.
#include "check.hpp"
#include "hostile.hpp"
#include "protocol/master.hpp"

using namespace pccl;

namespace {

Register at_the_door(PeerId peer, bool deterministic) {
  Register m;
  m.peer = peer;
  m.run = 7;
  m.join.island = "peer-" + std::to_string(peer);
  m.join.reachable_at = {{"127.0.0.1", 1}};
  m.join.deterministic = deterministic;
  return m;
}

// What it was told with its connection's end; empty: nothing of the kind.
Error refusal(const std::vector<MasterEffect>& effects, ConnectionId c) {
  for (const auto& e : effects)
    if (const auto* send = std::get_if<master_effect::Send>(&e); send != nullptr && send->to == c)
      if (const auto* refused = std::get_if<Refused>(&send->message)) return {refused->code, refused->text};
  return {};
}

}  // namespace

TEST(all_of_them_say_the_same_about_determinism) {
  Timing timing;
  Master master({.timing = timing, .rules = {}, .run = 0, .restarted = true, .stored = {}}, 0);
  master.on(1, at_the_door(1, false), 0);
  master.on(2, at_the_door(2, true), 0);
  master.on(3, at_the_door(3, false), 0);
  for (int i = 0; master.listening() && i < 10; ++i) master.tick(master.next_deadline());
  const auto effects = master.take_effects();
  CHECK(!refusal(effects, 1));
  CHECK(refusal(effects, 2).code == ErrorCode::mismatch);
  CHECK(!refusal(effects, 3));
  CHECK_EQ(master.peers(), std::size_t(2));
}

namespace {

// How long a newcomer with that address waits at a restarted master whose store names a member at the first
// one, where somebody listens; no more than a minute.
Duration waits_at(std::uint16_t member_port, std::uint16_t newcomer_port) {
  View view;
  view.id = {1, 1};
  Member member;
  member.peer = (PeerId{1} << 32) + 1;
  member.island = "peer-4294967297";
  member.reachable_at = {{"127.0.0.1", member_port}};
  view.members.push_back(member);
  Master master({.timing = {}, .rules = {}, .run = 7, .restarted = true, .stored = Stored{1, view}}, 0);
  auto join = hostile::join_of("");
  join.reachable_at = {{"127.0.0.1", newcomer_port}};
  master.on(1, join, 0);
  Instant now = 0;
  while (master.listening() && now < 60 * second) master.tick(now = master.next_deadline());
  return now;
}

}  // namespace

// The old master wrote down that it was let in, and was killed before it said so. It listens, and waits for
// itself: for ever, where masters are killed more often than a run without its peers is over.
TEST(a_newcomer_does_not_wait_for_itself) {
  CHECK(waits_at(5, 5) < 5 * second);
  CHECK(waits_at(5, 6) > 20 * second);  // another process: a living peer may still be on its way
}
