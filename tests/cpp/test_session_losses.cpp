// What a session says of those who left during its operations.
#include <algorithm>
#include <string>

#include "check.hpp"
#include "protocol/session.hpp"

namespace pccl {

namespace {

Member member(PeerId peer, std::uint32_t group) {
  return {peer, "peer-" + std::to_string(peer), 0, group, Role::trainer, {{"host", std::uint16_t(peer)}}};
}

// Peer 1 of group 0, which has been let in with these.
struct Peer {
  explicit Peer(std::vector<Member> members) : session(Join{}, Timing{}) {
    session.on_master_up(now);
    session.on(ToPeer{Welcome{1, 7, 0, 500, "peer-1"}}, now);
    view.id = {0, 1};
    view.members = std::move(members);
    session.on(ToPeer{ViewMessage{view, ""}}, now);
  }
  void lose(PeerId peer) {
    ++view.id.number;
    std::erase_if(view.members, [&](const Member& m) { return m.peer == peer; });
    session.on(ToPeer{ViewMessage{view, ""}}, now);
  }
  void post() {
    Posting posting;
    posting.scope = Scope::run;
    posting.descriptor.call = Call::barrier;
    posting.descriptor.on_loss = OnLoss::raise;
    REQUIRE(bool(session.post(posting, now)));
  }
  // Why it wants an operation to end.
  std::string asked() {
    std::string text;
    for (auto& effect : session.take_effects())
      if (const auto* sent = std::get_if<effect::SendMaster>(&effect))
        if (const auto* abandon = std::get_if<Abandon>(&sent->message)) text = abandon->text;
    return text;
  }

  Instant now = 1000 * second;
  View view;
  Session session;
};

}  // namespace

// Also where the operation loses somebody of another group, and one of its own left before.
TEST(who_left_during_an_operation_is_who_left_now) {
  Peer peer({member(1, 0), member(2, 0), member(3, 0), member(4, 1)});
  peer.lose(3);
  peer.post();
  CHECK_EQ(peer.asked(), "");
  peer.lose(4);
  const auto text = peer.asked();
  CHECK(text.starts_with("peer 4 left during barrier"));
}

}  // namespace pccl
