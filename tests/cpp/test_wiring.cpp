// What measured links make of orders and hints: when a ring is worth adopting, and when hints have changed.
#include <set>

#include "check.hpp"
#include "protocol/probe_rounds.hpp"
#include "protocol/wiring.hpp"

namespace pccl {

namespace {

constexpr std::uint64_t mb = 1'000'000;

MeasuredLink link(PeerId to, std::uint64_t bandwidth, std::uint32_t rtt_us = 1000) {
  return {to, bandwidth, rtt_us, Evidence::probe};
}

// Peers 1 to 5, each on a host of its own: fast to the second next, slow to the next.
Wiring star() {
  Wiring wiring;
  for (PeerId from = 1; from <= 5; ++from)
    for (PeerId to = 1; to <= 5; ++to) {
      const auto apart = (to + 5 - from) % 5;
      if (from != to) wiring.learn(from, link(to, apart == 1 || apart == 4 ? 10 * mb : 40 * mb), 0);
    }
  return wiring;
}

const GroupRing admitted{3, {1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}};

}  // namespace

TEST(a_better_order_is_adopted_and_then_kept) {
  const auto wiring = star();
  const auto found = wiring.propose(admitted, {}, true);
  CHECK(found.report.adopted);
  CHECK(found.ring == (std::vector<PeerId>{1, 3, 5, 2, 4}));
  CHECK_EQ(found.report.group, 3u);
  CHECK_EQ(found.report.bandwidth_before, 10 * mb);
  CHECK_EQ(found.report.bandwidth, 40 * mb);
  CHECK_EQ(found.report.latency_us, 5000u);
  CHECK_EQ(found.report.links, 20u);
  CHECK_EQ(found.report.measured, 20u);
  CHECK(!wiring.propose({3, found.ring, admitted.hosts}, {}, true).report.adopted);
}

TEST(nothing_is_known_nothing_changes) {
  const auto found = Wiring().propose(admitted, {}, true);
  CHECK(!found.report.adopted);
  CHECK_EQ(found.report.measured, 0u);
  CHECK(Wiring().paths({{3, {1, 2}, {0, 0}}}).empty());
}

TEST(links_that_cannot_be_opened_are_in_no_new_order) {
  const auto wiring = star();
  const auto found = wiring.propose(admitted, {{1, 3}}, false);  // the only fast ring needs it
  for (std::size_t i = 0; i < found.ring.size(); ++i)
    CHECK((found.ring[i] + found.ring[(i + 1) % 5] != 4) || !found.report.adopted);
}

TEST(without_a_mesh_new_neighbours_must_have_met) {
  Wiring wiring;
  for (const auto& [from, to] : std::vector<std::pair<PeerId, PeerId>>{{1, 2}, {2, 3}, {3, 4}, {4, 1}}) {
    wiring.learn(from, link(to, from == 1 ? mb : 50 * mb), 0);
    wiring.learn(to, link(from, from == 1 ? mb : 50 * mb), 0);
  }
  const GroupRing four{0, {1, 2, 3, 4}, {1, 2, 3, 4}};
  CHECK(wiring.propose(four, {}, true).report.adopted);  // around the slow link by ones that nobody measured
  CHECK(!wiring.propose(four, {}, false).report.adopted);
}

TEST(peers_of_one_host_are_near_each_other) {
  Wiring wiring;
  for (const auto& [a, b] :
       std::vector<std::pair<PeerId, PeerId>>{{1, 2}, {2, 3}, {3, 4}, {4, 1}, {1, 3}, {2, 4}}) {
    const auto local = (a + b) % 2 == 0;  // 1 and 3, 2 and 4: never measured
    if (local) continue;
    wiring.learn(a, link(b, 10 * mb, 5000), 0);
    wiring.learn(b, link(a, 10 * mb, 5000), 0);
  }
  const auto found = wiring.propose({0, {1, 2, 3, 4}, {1, 2, 1, 2}}, {}, true);
  CHECK(found.report.adopted);  // two ways between the hosts instead of four
  CHECK(found.ring == (std::vector<PeerId>{1, 2, 4, 3}) || found.ring == (std::vector<PeerId>{1, 3, 2, 4}) ||
        found.ring == (std::vector<PeerId>{1, 3, 4, 2}));
  const auto paths = wiring.paths({{0, {1, 3, 2, 4}, {1, 1, 2, 2}}});
  REQUIRE(paths.size() == 1);
  CHECK_EQ(paths[0].hosts, 2);
  CHECK_EQ(paths[0].host_peers, 2);
  CHECK_EQ(paths[0].mesh_bandwidth, 10 * mb);
}

TEST(hosts_that_are_not_all_known_do_not_count) {
  Wiring wiring;
  wiring.learn(1, link(2, mb), 0);
  CHECK_EQ(wiring.paths({{0, {1, 2}, {1, 0}}}).at(0).hosts, 0);
  CHECK_EQ(wiring.paths({{0, {1, 2}, {1, 2}}}).at(0).hosts, 2);
}

TEST(who_left_is_forgotten) {
  auto wiring = star();
  wiring.forget(3);
  CHECK_EQ(wiring.propose({3, {1, 2, 4, 5}, {1, 2, 4, 5}}, {}, true).report.measured, 12u);
}

TEST(small_changes_are_none) {
  GroupPaths told;
  told.mesh_bandwidth = told.ring_bandwidth = 100 * mb;
  told.mesh_rtt_us = told.ring_rtt_us = 20'000;
  const auto with = [&](auto change) {
    auto now = told;
    change(now);
    return differ_materially({told}, {now});
  };
  CHECK(!with([](auto& p) { p.mesh_bandwidth = 80 * mb; }));
  CHECK(with([](auto& p) { p.mesh_bandwidth = 70 * mb; }));
  CHECK(with([](auto& p) { p.ring_bandwidth = 0; }));
  CHECK(!with([](auto& p) { p.ring_rtt_us = 24'000; }));
  CHECK(with([](auto& p) { p.mesh_rtt_us = 30'000; }));
  CHECK(differ_materially({told}, {}));
  GroupPaths near;
  near.mesh_rtt_us = 40;
  auto nearer = near;
  nearer.mesh_rtt_us = 400;  // load, not distance
  CHECK(!differ_materially({near}, {nearer}));
}

TEST(everybody_meets_everybody_once_and_nobody_two_at_a_time) {
  for (std::uint32_t peers = 0; peers <= 33; ++peers) {
    std::set<std::pair<std::uint32_t, std::uint32_t>> met;
    for (std::uint32_t round = 0; round < probe_rounds(peers); ++round) {
      std::set<std::uint32_t> busy;
      for (const auto& [a, b] : probe_pairs(peers, round)) {
        CHECK(a < b && b < peers);
        CHECK(busy.insert(a).second && busy.insert(b).second);
        CHECK(met.insert({a, b}).second);
      }
    }
    CHECK_EQ(met.size(), std::size_t{peers} * (peers == 0 ? 0 : peers - 1) / 2);
    CHECK(probe_pairs(peers, probe_rounds(peers)).empty());
  }
}

}  // namespace pccl
