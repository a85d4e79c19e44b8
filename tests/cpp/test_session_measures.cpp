// What a session tells of its links: now and then, before a boundary, and when it is asked to measure one.
#include <algorithm>

#include "check.hpp"
#include "protocol/session.hpp"

namespace pccl {

namespace {

constexpr std::uint64_t mb = 1'000'000;

// Peer 1 of a run of so many, without links yet.
struct Peer {
  explicit Peer(PeerId trainers, bool deterministic = false) : session(Join{}, Timing{}) {
    session.on_master_up(now);
    hear(Welcome{1, 7, 0, 500, "peer-1"});
    view.id = {0, 1};
    view.hints.mesh = true;
    view.hints.deterministic = deterministic;
    for (PeerId peer = 1; peer <= trainers; ++peer) {
      Member member;
      member.peer = peer;
      member.island = "peer-" + std::to_string(peer);
      view.members.push_back(member);
    }
    hear(ViewMessage{view, ""});
    (void)session.take_effects();
  }
  void hear(const ToPeer& message) { session.on(message, now); }
  void pass(Duration time) {
    for (const auto until = now + time; now < until; now += millisecond) {
      hear(Pulse{0, {}});
      session.tick(now);
    }
  }
  // Of what it has said since it was last asked.
  template <class M> std::vector<M> said() {
    std::vector<M> all;
    for (auto& e : session.take_effects()) {
      const auto* send = std::get_if<effect::SendMaster>(&e);
      if (send == nullptr) continue;
      if (const auto* message = std::get_if<M>(&send->message)) all.push_back(*message);
    }
    return all;
  }
  void note(PeerId to, std::uint64_t bandwidth = mb) {
    session.note_links({{to, bandwidth, 100, Evidence::transfer}}, now);
  }

  Instant now = 1000 * second;
  View view;
  Session session;
};

}  // namespace

TEST(reports_come_once_in_a_while_and_name_a_link_once) {
  Peer peer(4);
  peer.note(2);
  CHECK_EQ(peer.said<LinkReport>().size(), 1u);
  peer.note(3, mb);
  peer.note(3, 2 * mb);
  peer.note(4);
  peer.note(77);  // nobody
  peer.note(1);   // itself
  CHECK(peer.said<LinkReport>().empty());
  peer.pass(2 * second);
  const auto reports = peer.said<LinkReport>();
  REQUIRE(reports.size() == 1);
  REQUIRE(reports[0].links.size() == 2);
  CHECK_EQ(reports[0].links[0].bandwidth, 2 * mb);
  peer.pass(5 * second);
  CHECK(peer.said<LinkReport>().empty());  // no news
}

TEST(what_is_known_comes_before_a_boundary) {
  Peer peer(3);
  peer.note(2);
  peer.note(3);
  (void)peer.said<LinkReport>();
  REQUIRE(bool(peer.session.enter_boundary(0, never, peer.now)));
  bool reported = false;
  for (auto& e : peer.session.take_effects())
    if (const auto* send = std::get_if<effect::SendMaster>(&e)) {
      reported |= std::holds_alternative<LinkReport>(send->message);
      if (std::holds_alternative<EnterBoundary>(send->message)) CHECK(reported);
    }
  CHECK(reported);
}

TEST(a_report_is_bounded) {
  Peer peer(200);
  peer.note(2);
  (void)peer.said<LinkReport>();
  for (PeerId to = 2; to <= 200; ++to) peer.note(to);
  peer.pass(2 * second);
  const auto reports = peer.said<LinkReport>();
  REQUIRE(reports.size() == 1);
  CHECK_EQ(reports[0].links.size(), limits::peers_named_max);
}

TEST(a_probe_waits_for_its_link_and_is_answered_without_one) {
  Peer peer(3);
  const Probe ask{peer.view.id, 5, 2, 100};
  peer.hear(ask);
  peer.pass(3 * second);
  CHECK(peer.said<Probed>().empty());  // it is at no boundary
  REQUIRE(bool(peer.session.enter_boundary(0, never, peer.now, 100)));
  peer.hear(ask);
  peer.session.on_link_up(2, peer.now);
  const auto effects = peer.session.take_effects();
  CHECK(
      std::ranges::any_of(effects, [](const Effect& e) { return std::holds_alternative<effect::Probe>(e); }));
  peer.session.probed(4, {2, mb, 100, Evidence::probe});  // of another round
  CHECK(peer.said<Probed>().empty());
  peer.session.probed(5, {2, mb, 100, Evidence::probe});
  CHECK_EQ(peer.said<Probed>().size(), 1u);
  peer.session.probed(5, {2, mb, 100, Evidence::probe});
  CHECK(peer.said<Probed>().empty());
  peer.hear(Probe{peer.view.id, 6, 3, 100});  // nobody can open that link
  peer.pass(3 * second);
  const auto given_up = peer.said<Probed>();
  REQUIRE(given_up.size() == 1);
  CHECK_EQ(given_up[0].link.to, 3u);
  CHECK_EQ(given_up[0].link.bandwidth, 0u);
}

TEST(a_due_view_is_not_skipped) {
  for (const bool due : {false, true}) {
    Peer peer(2);
    Posting posting;
    posting.scope = Scope::run;
    posting.descriptor.call = Call::barrier;
    auto key = peer.session.post(posting, peer.now);
    REQUIRE(bool(key));
    peer.session.attempt_complete(key.value(), peer.now);
    Verdict verdict;
    verdict.key = key.value();
    verdict.view = peer.view.id;
    verdict.view_due = due;
    peer.hear(Commit{1, 0, verdict});
    const auto passed = peer.session.enter_boundary(0, never, peer.now);
    REQUIRE(bool(passed));
    CHECK_EQ(passed.value(), !due);
  }
}

TEST(deterministic_runs_have_nothing_to_optimize) {
  Peer peer(2, true);
  const auto entered = peer.session.enter_boundary(0, never, peer.now, 100);
  REQUIRE(!entered);
  CHECK(entered.error().code == ErrorCode::usage);
}

}  // namespace pccl
