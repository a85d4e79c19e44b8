// Reports and probes at the master: what the next boundary brings, and whoever does not play along.
#include "court.hpp"

namespace pccl::hostile {

namespace {

constexpr std::uint64_t mb = 1'000'000;

// Members 1 to n on hosts of their own, who pass boundaries together.
class Run : public Court {
 public:
  explicit Run(std::uint32_t count, bool deterministic = false) : count_(count) {
    for (ConnectionId c = 1; c <= count; ++c) {
      auto join = join_of("island" + std::to_string(c));
      join.host_id = "host" + std::to_string(c);
      join.min_islands = count;
      join.deterministic = deterministic;
      admit(c, join);
    }
    REQUIRE(view().members.size() == count);
  }
  const View& view() const { return master.view(); }
  PeerId peer(ConnectionId c) const { return peers.at(c); }
  void report(ConnectionId from, ConnectionId to, std::uint64_t bandwidth,
              Evidence evidence = Evidence::probe) {
    say(from, LinkReport{{{peer(to), bandwidth, 1000, evidence}}});
  }
  // Fast to the second next, slow to the next.
  std::uint64_t speed(ConnectionId from, ConnectionId to) const {
    const auto apart = (to + count_ - from) % count_;
    return apart == 1 || apart == count_ - 1 ? 10 * mb : 40 * mb;
  }
  void report_all() {
    for (ConnectionId from = 1; from <= count_; ++from)
      for (ConnectionId to = 1; to <= count_; ++to)
        if (from != to) report(from, to, speed(from, to));
  }
  void live(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      pass(second);
      for (ConnectionId c = 1; c <= count_; ++c) say(c, Heartbeat{});
    }
  }
  void enter(ConnectionId c, std::uint32_t probe_ms = 0) {
    say(c, EnterBoundary{view().id, view().boundaries + 1, 0, 0, false, probe_ms});
  }
  void enter_all(std::uint32_t probe_ms = 0) {
    for (ConnectionId c = 1; c <= count_; ++c)
      if (is_member(peer(c))) enter(c, probe_ms);
  }
  // Whether a commit tells that the next boundary brings a view.
  bool commit_says_due() {
    const OpKey key{Scope::run, 0, {view().boundaries, 0, next_++}};
    for (ConnectionId c = 1; c <= count_; ++c) say(c, Done{view().id, key, 0});
    REQUIRE(last_commit.has_value());
    return last_commit->verdict.view_due;
  }

 private:
  std::uint32_t count_, next_ = 0;
};

}  // namespace

TEST(reports_bring_hints_with_the_next_boundary_and_not_before) {
  Run run(3);
  const auto first = run.view().id;
  run.report_all();
  run.pass(second);
  CHECK(run.view().id == first);  // everything that a plan depends on comes with a view
  CHECK(run.commit_says_due());
  run.enter_all();
  CHECK(run.view().id > first);
  CHECK_EQ(run.view().boundaries, 1u);
  REQUIRE(run.view().hints.paths.size() == 1);
  CHECK_EQ(run.view().hints.paths[0].mesh_bandwidth, 10 * mb);
  CHECK_EQ(run.view().hints.paths[0].hosts, 3);
  CHECK(!run.commit_says_due());
}

TEST(a_boundary_without_news_keeps_the_view) {
  Run run(3);
  run.report_all();
  run.pass(second);
  run.enter_all();
  const auto told = run.view().id;
  run.live(20);
  run.report_all();  // the same
  run.live(20);
  CHECK(!run.commit_says_due());
  run.enter_all();
  CHECK(run.view().id == told);
  CHECK_EQ(run.view().boundaries, 2u);
}

TEST(a_better_order_comes_with_a_boundary) {
  Run run(5);
  run.report_all();
  run.pass(second);
  CHECK(run.view().order.empty());
  run.enter_all();
  CHECK(run.view().ring(0) ==
        (std::vector<PeerId>{run.peer(1), run.peer(3), run.peer(5), run.peer(2), run.peer(4)}));
  CHECK_EQ(run.view().hints.paths.at(0).ring_bandwidth, 40 * mb);
}

TEST(who_leaves_leaves_a_gap_and_who_comes_is_behind) {
  Run run(5);
  run.report_all();
  run.pass(second);
  run.enter_all();
  const auto at = [&](std::vector<ConnectionId> connections) {
    std::vector<PeerId> all;
    for (const auto c : connections) all.push_back(run.peer(c));
    return all;
  };
  run.say(5, Leave{});
  CHECK(run.view().ring(0) == at({1, 3, 2, 4}));
  run.admit(9, join_of("late"));
  run.enter_all();
  CHECK(run.view().ring(0) == at({1, 3, 2, 4, 9}));
}

TEST(probes_of_all_pairs_and_then_the_order) {
  Run run(5);
  const auto first = run.view().id;
  std::size_t asked = 0;
  run.on_probe = [&](ConnectionId c, const Probe& m) {
    ++asked;
    CHECK_EQ(m.milliseconds, 100u);
    ConnectionId to = 1;
    while (run.peer(to) != m.peer) ++to;
    return Probed{m.view, m.round, {m.peer, run.speed(c, to), 1000, Evidence::probe}};
  };
  run.enter_all(100);
  CHECK_EQ(asked, 20u);
  CHECK(run.view().id > first);
  CHECK_EQ(run.view().boundaries, 1u);
  CHECK(!run.view().order.empty());
  REQUIRE(run.last_view.has_value());
  REQUIRE(run.last_view->rings.size() == 1);
  CHECK(run.last_view->rings[0].adopted);
  CHECK_EQ(run.last_view->rings[0].bandwidth, 40 * mb);
  CHECK(run.view().rings.empty());  // no view to come repeats it
}

TEST(peers_of_one_host_are_not_probed) {
  Court court;
  for (ConnectionId c = 1; c <= 3; ++c) {
    auto join = join_of("island" + std::to_string(c));
    join.host_id = "one";
    join.min_islands = 3;
    court.admit(c, join);
  }
  court.on_probe = [&](ConnectionId, const Probe& m) -> Probed {
    check::fail(std::source_location::current(), "a probe");
    return {m.view, m.round, {}};
  };
  for (ConnectionId c = 1; c <= 3; ++c)
    court.say(c, EnterBoundary{court.master.view().id, 1, 0, 0, false, 50});
  CHECK_EQ(court.master.view().boundaries, 1u);
}

TEST(who_does_not_answer_a_probe_is_not_waited_for) {
  Run run(3);
  run.enter_all(100);
  CHECK_EQ(run.view().boundaries, 0u);
  run.live(20);
  CHECK_EQ(run.view().members.size(), 3u);
  CHECK_EQ(run.view().boundaries, 1u);
  CHECK(run.view().order.empty());
}

TEST(a_death_among_probes_ends_them_and_the_others_begin_anew) {
  Run run(3);
  run.enter_all(100);
  run.say(2, Leave{});
  CHECK_EQ(run.view().members.size(), 2u);
  CHECK_EQ(run.view().boundaries, 0u);
  run.on_probe = [&](ConnectionId, const Probe& m) {
    return Probed{m.view, m.round, {m.peer, mb, 1000, Evidence::probe}};
  };
  run.enter_all(100);
  CHECK_EQ(run.view().boundaries, 1u);
}

TEST(all_must_make_the_same_call) {
  Run run(3);
  run.enter(1, 100);
  run.enter(2);
  CHECK(run.failures.empty());
  run.enter(3, 100);
  CHECK_EQ(run.failures.size(), 3u);
  for (const auto& failed : run.failures) CHECK(failed.verdict.code == ErrorCode::order);
  CHECK_EQ(run.view().boundaries, 0u);
}

TEST(who_leaves_the_boundary_ends_the_probes) {
  Run run(3);
  run.enter_all(100);
  run.say(3, EnterBoundary{run.view().id, 1, 0, 0, true, 100});
  CHECK_EQ(run.failures.size(), 1u);
  run.on_probe = [&](ConnectionId, const Probe& m) {
    return Probed{m.view, m.round, {m.peer, mb, 1000, Evidence::probe}};
  };
  run.enter(3, 100);
  CHECK_EQ(run.view().boundaries, 1u);
}

TEST(deterministic_runs_know_nothing_of_links) {
  Run run(5, true);
  run.report_all();
  run.pass(second);
  CHECK(!run.commit_says_due());
  run.enter_all();
  CHECK(run.view().order.empty());
  CHECK(run.view().hints.deterministic);
  CHECK(run.view().hints.paths.empty());
  run.enter_all(100);  // no honest peer asks
  CHECK_EQ(run.view().boundaries, 2u);
}

TEST(deterministic_peers_keep_to_themselves) {
  Run run(2, true);
  run.admit(9, join_of("other"));
  CHECK(run.closed(9));
  CHECK(run.refusals.back().code == ErrorCode::mismatch);
  auto join = join_of("same");
  join.deterministic = true;
  run.admit(10, join);
  CHECK(!run.closed(10));
}

TEST(nonsense_about_links_does_no_harm) {
  Run run(3);
  for (ConnectionId to = 1; to <= 3; ++to)
    run.say(1, LinkReport{{{run.peer(to), ~std::uint64_t{0}, ~std::uint32_t{0}, Evidence::probe},
                           {77, mb, 1, Evidence::probe}}});
  run.pass(second);
  run.enter_all();
  CHECK_EQ(run.view().boundaries, 1u);
  run.say(1, Probed{run.view().id, 1, {run.peer(2), 5, 5, Evidence::probe}});  // nobody asked
  CHECK_EQ(run.view().members.size(), 3u);
}

}  // namespace pccl::hostile
