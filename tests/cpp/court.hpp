// A master that anybody may say anything to, and what came of it.
#pragma once
#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "hostile.hpp"
#include "protocol/master.hpp"

namespace pccl::hostile {

// A master that starts again and listens for who was there.
inline MasterConfig restarted() {
  MasterConfig config;
  config.restarted = true;
  return config;
}

inline Register registration_of(PeerId peer) {
  Register registration;
  registration.peer = peer;
  registration.run = 1;
  return registration;
}

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
  std::function<Probed(ConnectionId, const Probe&)> on_probe;  // none: nobody answers
  static constexpr std::size_t kept = 16;
  std::vector<Failed> failures;  // the first that peers heard, and so on
  std::vector<Refused> refusals;
  std::optional<Commit> last_commit;
  std::optional<View> last_view;

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
    if (const auto* probe = std::get_if<Probe>(&send.message); probe != nullptr && on_probe)
      master.on(send.to, on_probe(send.to, *probe), now);
    if (const auto* failed = std::get_if<Failed>(&send.message); failed != nullptr && failures.size() < kept)
      failures.push_back(*failed);
    if (const auto* refused = std::get_if<Refused>(&send.message);
        refused != nullptr && refusals.size() < kept)
      refusals.push_back(*refused);
    if (const auto* commit = std::get_if<Commit>(&send.message)) last_commit = *commit;
    if (const auto* view = std::get_if<ViewMessage>(&send.message)) last_view = view->view;
  }

  std::set<ConnectionId> closed_;
};

}  // namespace pccl::hostile
