// Ring orders against brute force, local search against exact, time limits, and when a new order is worth it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>

#include "base/rng.hpp"
#include "check.hpp"
#include "protocol/topology.hpp"

namespace pccl {

namespace {

constexpr std::uint64_t mb = 1'000'000;

void know(LinkMatrix& matrix, PeerId from, PeerId to, std::uint64_t bandwidth, Duration rtt) {
  matrix.learn(from, to, {{bandwidth, rtt}, Evidence::probe}, 0);
}

std::vector<PeerId> ids(std::size_t count, PeerId first = 1) {
  std::vector<PeerId> peers(count);
  std::iota(peers.begin(), peers.end(), first);
  return peers;
}

// Few distinct values make ties; a fraction of the links stays unknown.
LinkMatrix random_links(Rng& rng, const std::vector<PeerId>& peers, std::uint64_t distinct, double known) {
  LinkMatrix matrix;
  for (const auto from : peers)
    for (const auto to : peers)
      if (from != to && rng.chance(known)) {
        const auto latency = microsecond * Duration(1 + rng.below(distinct));  // one draw after the other
        know(matrix, from, to, mb * (1 + rng.below(distinct)), latency);
      }
  return matrix;
}

// What best_ring promises, by trying all.
std::vector<PeerId> brute_force(const LinkMatrix& matrix, std::vector<PeerId> peers, std::uint32_t slack) {
  std::ranges::sort(peers);
  std::uint64_t fastest = 0;
  auto order = peers;
  do fastest = std::max(fastest, score_ring(matrix, order).bottleneck);
  while (std::next_permutation(order.begin() + 1, order.end()));
  const auto enough = fastest - fastest / 100 * slack;
  std::vector<PeerId> best;
  Duration least = INT64_MAX;
  do {
    const auto score = score_ring(matrix, order);
    if (score.bottleneck < enough || score.latency >= least) continue;
    least = score.latency;
    best = order;
  } while (std::next_permutation(order.begin() + 1, order.end()));
  return best;
}

bool is_order_of(std::vector<PeerId> ring, std::vector<PeerId> peers) {
  std::ranges::sort(peers);
  if (!ring.empty() && ring.front() != peers.front()) return false;
  std::ranges::sort(ring);
  return ring == peers;
}

double milliseconds(const auto& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

const RingOptions by_search{.exact_peers = 0};

// Sites far from each other; inside everything is fast and near. Peer p is in site p % sites.
LinkMatrix sites_of(Rng& rng, const std::vector<PeerId>& peers, std::uint64_t sites) {
  LinkMatrix matrix;
  for (const auto from : peers)
    for (const auto to : peers) {
      if (from == to || (peers.size() > 256 && rng.below(peers.size()) > 200)) continue;
      const auto near = from % sites == to % sites;
      const auto noise = 90 + rng.below(20);
      know(matrix, from, to, (near ? 12 * mb : mb) * noise, Duration(noise) * microsecond * (near ? 2 : 800));
    }
  return matrix;
}

}  // namespace

TEST(exact_orders_are_those_of_brute_force) {
  Rng rng(20260);
  for (std::size_t count = 3; count <= 7; ++count)
    for (int trial = 0; trial < (count < 7 ? 40 : 12); ++trial) {
      const auto peers = ids(count, 1 + rng.below(5));
      const auto distinct = trial % 3 == 0 ? 3 : trial % 3 == 1 ? 12 : 100'000;
      const auto matrix = random_links(rng, peers, std::uint64_t(distinct), trial % 4 == 3 ? 0.6 : 1);
      const auto slack = trial % 5 == 4 ? 20u : 0u;
      CHECK_EQ(best_ring(matrix, peers, {}, {.slack_percent = slack}), brute_force(matrix, peers, slack));
    }
}

TEST(few_peers_and_unknown_links) {
  const LinkMatrix nothing;
  CHECK_EQ(best_ring(nothing, {}), std::vector<PeerId>{});
  CHECK_EQ(best_ring(nothing, {7}), std::vector<PeerId>{7});
  CHECK_EQ(best_ring(nothing, {9, 7}), (std::vector<PeerId>{7, 9}));
  CHECK_EQ(best_ring(nothing, {9, 7, 9, 8}), (std::vector<PeerId>{7, 8, 9}));
  for (const std::size_t count : {5, 12, 13, 40, 300}) CHECK_EQ(best_ring(nothing, ids(count)), ids(count));
  CHECK(score_ring(nothing, ids(4)) == (RingScore{0, 0, 4}));
  CHECK(score_ring(nothing, ids(1)) == RingScore{});
}

TEST(a_slow_link_is_avoided_in_its_direction_alone) {
  LinkMatrix matrix;
  for (PeerId a = 1; a <= 4; ++a)
    for (PeerId b = 1; b <= 4; ++b) know(matrix, a, b, 100 * mb, millisecond);
  matrix.forget(2);
  for (const PeerId a : {1, 3, 4}) know(matrix, a, 2, 100 * mb, millisecond);
  know(matrix, 2, 1, mb, millisecond);
  know(matrix, 2, 3, mb, millisecond);
  know(matrix, 2, 4, 100 * mb, millisecond);
  CHECK_EQ(best_ring(matrix, ids(4)), (std::vector<PeerId>{1, 2, 4, 3}));
  CHECK(score_ring(matrix, ids(4)) == (RingScore{mb, 4 * millisecond, 0}));
  CHECK(score_ring(matrix, std::vector<PeerId>{1, 3, 2, 4}) == (RingScore{100 * mb, 4 * millisecond, 0}));
}

TEST(unknown_links_count_as_the_median) {
  LinkMatrix matrix;
  know(matrix, 1, 2, 10 * mb, 4 * millisecond);
  know(matrix, 2, 3, 30 * mb, 2 * millisecond);
  know(matrix, 3, 1, 20 * mb, 0);
  // 2 -> 1 and 3 -> 2 take the other direction's round trip, 1 -> 3 the (lower) median of 2 and 4 ms.
  CHECK(score_ring(matrix, std::vector<PeerId>{1, 3, 2}) == (RingScore{20 * mb, 8 * millisecond, 3}));
  CHECK_EQ(best_ring(matrix, ids(3)), (std::vector<PeerId>{1, 3, 2}));
}

TEST(local_search_comes_close_to_exact) {
  Rng rng(77);
  std::uint64_t worst_percent = 100;
  double sum = 0, longer = 0;
  int trials = 0, equal = 0, same_speed = 0;
  for (std::size_t count = 10; count <= 12; ++count)
    for (int trial = 0; trial < 20; ++trial) {
      const auto peers = ids(count);
      const auto matrix =
          trial % 2 == 0 ? random_links(rng, peers, 100'000, 1) : sites_of(rng, peers, 2 + rng.below(3));
      const auto exact = score_ring(matrix, best_ring(matrix, peers));
      const auto found = best_ring(matrix, peers, {}, by_search);
      CHECK(is_order_of(found, peers));
      const auto score = score_ring(matrix, found);
      CHECK(score.bottleneck <= exact.bottleneck);
      const auto percent = score.bottleneck * 100 / exact.bottleneck;
      worst_percent = std::min(worst_percent, percent);
      sum += double(percent);
      ++trials;
      equal += score == exact;
      if (score.bottleneck != exact.bottleneck) continue;
      ++same_speed;
      longer = std::max(longer, double(score.latency) / double(exact.latency));
    }
  std::printf("  local search against exact: %d of %d equal, %d as fast, worst %llu %%, mean %.1f %%, ",
              equal, trials, same_speed, static_cast<unsigned long long>(worst_percent), sum / trials);
  std::printf("latency at most x %.3f\n", longer);
  CHECK(worst_percent >= 98);
  CHECK(longer <= 1.02);
}

// The bound: every peer has to be entered and left.
TEST(local_search_comes_close_to_the_bound) {
  Rng rng(5);
  for (const std::size_t count : {16, 64, 200}) {
    const auto peers = ids(count);
    const auto matrix = random_links(rng, peers, 1'000'000, 1);
    std::uint64_t bound = UINT64_MAX;
    for (const auto peer : peers) {
      std::uint64_t out = 0, in = 0;
      for (const auto other : peers) {
        out = std::max(out, matrix.at(peer, other).bandwidth);
        in = std::max(in, matrix.at(other, peer).bandwidth);
      }
      bound = std::min({bound, out, in});
    }
    const auto score = score_ring(matrix, best_ring(matrix, peers));
    const auto by_id = score_ring(matrix, peers);
    std::printf("  %zu peers: %.1f %% of the bound, x %.1f of the order of ids, latency x %.2f\n", count,
                100.0 * double(score.bottleneck) / double(bound),
                double(score.bottleneck) / double(by_id.bottleneck),
                double(score.latency) / double(by_id.latency));
    CHECK(score.bottleneck * 100 >= bound * 95);
  }
}

TEST(far_sites_are_crossed_once_each_way) {
  Rng rng(6);
  for (const std::size_t count : {10, 24, 100}) {
    const auto peers = ids(count);
    const auto ring = best_ring(sites_of(rng, peers, 3), peers, {}, {.slack_percent = 20});
    std::size_t crossings = 0;
    for (std::size_t i = 0; i < count; ++i) crossings += ring[i] % 3 != ring[(i + 1) % count] % 3 ? 1 : 0;
    CHECK_EQ(crossings, 3);
  }
}

TEST(the_same_links_give_the_same_order) {
  Rng rng(8);
  for (const std::size_t count : {9, 30, 130}) {
    const auto peers = ids(count);
    const auto matrix = random_links(rng, peers, 1000, 0.7);
    auto shuffled = peers;
    for (std::size_t i = count; i > 1; --i) std::swap(shuffled[i - 1], shuffled[rng.below(i)]);
    const auto ring = best_ring(matrix, peers);
    CHECK(is_order_of(ring, peers));
    CHECK_EQ(best_ring(matrix, shuffled), ring);
  }
}

TEST(the_search_never_answers_worse_than_the_current_order) {
  Rng rng(9);
  for (int trial = 0; trial < 20; ++trial) {
    const auto peers = ids(20);
    const auto matrix = random_links(rng, peers, 100'000, 1);
    const auto good = best_ring(matrix, peers);
    const auto kept = best_ring(matrix, peers, good, {.work_max = 0});
    CHECK(is_order_of(kept, peers));
    CHECK(score_ring(matrix, kept).bottleneck >= score_ring(matrix, good).bottleneck);
    const std::vector<PeerId> of_others{1, 2, 3}, twice(20, 4);
    CHECK(is_order_of(best_ring(matrix, peers, of_others), peers));
    CHECK(is_order_of(best_ring(matrix, peers, twice), peers));
  }
}

TEST(time_is_bounded) {
  Rng rng(10);
  for (const std::size_t count : {8, 12, 16, 64, 512, 2000}) {
    const auto peers = ids(count);
    const auto noise = random_links(rng, peers, 1'000'000, std::min(1.0, 200.0 / double(count)));
    const auto sites = sites_of(rng, peers, 4);
    for (const auto* matrix : {&noise, &sites}) {
      std::vector<PeerId> ring;
      const auto took = milliseconds([&] { ring = best_ring(*matrix, peers); });
      std::printf("  best_ring: %zu peers, %s: %.2f ms\n", count, matrix == &noise ? "random" : "4 sites",
                  took);
      CHECK(is_order_of(ring, peers));
      CHECK(took < (count <= 12 ? 500 : 20'000));  // sanitizers and busy machines; the figures are printed
    }
  }
  const auto many = ids(5000);
  LinkMatrix matrix;
  know(matrix, 1, 3, mb, millisecond);
  CHECK_EQ(best_ring(matrix, many), many);
}

TEST(adoption_needs_a_real_gain) {
  const RingScore now{100 * mb, 100 * millisecond, 0};
  const auto adopt = [&](std::uint64_t bandwidth, Duration latency) {
    return should_adopt(now, {bandwidth, latency, 0});
  };
  CHECK(!adopt(100 * mb, 100 * millisecond));
  CHECK(!adopt(110 * mb, 100 * millisecond));
  CHECK(adopt(111 * mb, 100 * millisecond));
  CHECK(adopt(111 * mb, 900 * millisecond));  // bandwidth comes first
  CHECK(!adopt(100 * mb, 91 * millisecond));
  CHECK(adopt(100 * mb, 89 * millisecond));
  CHECK(adopt(96 * mb, 89 * millisecond));
  CHECK(!adopt(94 * mb, 10 * millisecond));
  CHECK(should_adopt(now, {106 * mb, 100 * millisecond, 0}, 5));
  CHECK(!should_adopt({0, 0, 3}, {0, 0, 3}));
  CHECK(should_adopt({0, 0, 3}, {1, 0, 2}));
  // In one rack a tenth of the latency is nothing.
  CHECK(!should_adopt({mb, 400 * microsecond, 0}, {mb, 200 * microsecond, 0}));
}

TEST(noise_does_not_make_the_order_flap) {
  Rng rng(11);
  const auto peers = ids(8);
  LinkMatrix matrix;
  auto ring = peers;
  int adopted = 0;
  for (int round = 0; round < 100; ++round) {
    for (const auto from : peers)
      for (const auto to : peers)
        if (from != to)
          matrix.learn(
              from, to,
              {{mb * (95 + rng.below(11)), microsecond * Duration(950 + rng.below(101))}, Evidence::transfer},
              round * second);
    const auto proposed = best_ring(matrix, peers, ring);
    if (!should_adopt(score_ring(matrix, ring), score_ring(matrix, proposed))) continue;
    ring = proposed;
    ++adopted;
  }
  CHECK_EQ(adopted, 0);
}

TEST(paths_are_summed_up_for_the_cost_model) {
  LinkMatrix matrix;
  const std::vector<PeerId> ring{2, 5, 3};
  CHECK(summarise_paths(matrix, 9, ring) == GroupPaths{.group = 9});
  know(matrix, 2, 5, 50 * mb, 1500);
  know(matrix, 5, 3, 40 * mb, 2 * millisecond);
  know(matrix, 5, 2, 10 * mb, 3 * millisecond);
  know(matrix, 3, 7, mb, second);  // of another group
  auto paths = summarise_paths(matrix, 9, ring);
  CHECK_EQ(paths.ring_bandwidth, 40 * mb);
  CHECK_EQ(paths.ring_rtt_us, 2000);
  CHECK_EQ(paths.mesh_bandwidth, 10 * mb);
  CHECK_EQ(paths.mesh_rtt_us, 3000);
  CHECK_EQ(paths.hosts, 0);
  const std::vector<std::uint32_t> hosts{4, 4, 1};
  paths = summarise_paths(matrix, 9, ring, hosts);
  CHECK_EQ(paths.hosts, 2);
  CHECK_EQ(paths.host_peers, 2);
  CHECK_EQ(paths.local_bandwidth, 10 * mb);
  CHECK_EQ(paths.local_rtt_us, 3000);
}

}  // namespace pccl
