// The cost model against what was measured: a prototype on two cores and under a WAN emulator.
#include "base/rng.hpp"
#include "check.hpp"
#include "generate.hpp"
#include "protocol/cost.hpp"

namespace pccl {

namespace {

constexpr std::uint64_t kib = 1 << 10, mib = 1 << 20;
constexpr std::uint64_t mbit = 125'000;  // bytes per second

GroupPaths uniform(std::uint64_t bandwidth, std::uint32_t rtt_us) {
  GroupPaths paths;
  paths.ring_bandwidth = paths.mesh_bandwidth = bandwidth;
  paths.ring_rtt_us = paths.mesh_rtt_us = rtt_us;
  return paths;
}

// Four processes on two cores over loopback: 0.26 s of CPU per GB, shared.
GroupPaths loopback(std::uint32_t peers) {
  auto paths = uniform(7'660'000'000, 30);
  paths.hosts = 1;
  paths.host_peers = std::uint16_t(peers);
  paths.cpu_ps_per_byte = 260 * peers / 2;
  return paths;
}

PlanHints hints_of(const GroupPaths& paths) {
  PlanHints hints;
  hints.mesh = true;
  hints.paths = {paths};
  return hints;
}

PlanRequest reduce(std::uint32_t peers, std::uint64_t bytes) {
  PlanRequest request;
  request.peers = peers;
  request.bytes = bytes;
  return request;
}

PlanChoice choose(const GroupPaths& paths, const PlanRequest& request) {
  return choose_plan(hints_of(paths), paths.group, request);
}

double predicted_ms(const GroupPaths& paths, const PlanRequest& request, Algorithm algorithm) {
  const auto time = predict(paths, request, algorithm);
  CHECK(time.has_value());
  return double(time.value_or(0)) / 1e6;
}

void check_between(double value, double least, double most, const std::string& what) {
  if (value >= least && value <= most) return;
  check::fail(std::source_location::current(), what + ": " + std::to_string(value));
}

}  // namespace

// Measured: direct exchange 57 ms, ring 244 ms (ideal 40 and 240).
TEST(small_over_a_wan_takes_one_hop) {
  const auto paths = uniform(250 * mbit, 80'000);
  const auto request = reduce(4, 64 * kib);
  check_between(predicted_ms(paths, request, Algorithm::exchange), 40, 57, "exchange");
  check_between(predicted_ms(paths, request, Algorithm::direct), 80, 90, "direct");
  check_between(predicted_ms(paths, request, Algorithm::ring), 240, 250, "ring");
  CHECK(choose(paths, request).algorithm == Algorithm::exchange);
  CHECK(choose(paths, reduce(4, 64 * kib + 1)).algorithm == Algorithm::direct);
  CHECK(choose(paths, reduce(9, 64 * kib)).algorithm == Algorithm::direct);
}

// A stream sends ten packets before the first answer, and paces them: eight leave sooner than one.
TEST(small_over_a_wan_leaves_on_several_streams) {
  const auto paths = uniform(250 * mbit, 80'000);
  CHECK_EQ(choose(paths, reduce(4, 64 * kib)).chunk_bytes, 8 * kib);
  CHECK_EQ(choose(paths, reduce(4, 8 * kib)).chunk_bytes, 4 * kib);
  CHECK_EQ(choose(paths, reduce(4, 256 * kib)).chunk_bytes, 8 * kib);  // to each owner
  CHECK(choose(uniform(250 * mbit, 500), reduce(4, 64 * kib)).chunk_bytes >= 32 * kib);
}

// Neither sends more than by any other plan, and one hop is saved.
TEST(two_far_peers_exchange_any_size) {
  const auto paths = uniform(1000 * mbit, 100'000);
  CHECK(choose(paths, reduce(2, 64 * mib)).algorithm == Algorithm::exchange);
  check_between(predicted_ms(paths, reduce(2, 64 * mib), Algorithm::exchange), 580, 620, "64 MiB");
  CHECK(choose(paths, reduce(3, 64 * mib)).algorithm != Algorithm::exchange);
  CHECK(choose(uniform(1000 * mbit, 500), reduce(2, 64 * mib)).algorithm == Algorithm::ring);
  auto broadcast = reduce(2, 64 * mib);
  broadcast.call = Call::broadcast;
  CHECK(choose(paths, broadcast).algorithm != Algorithm::exchange);
}

TEST(stripes_of_bulk_share_the_access_line) {
  CHECK_EQ(bulk_stripes(0, 80'000, 1), limits::stripes_max);  // not known: as many as there are
  CHECK_EQ(bulk_stripes(0, 80'000, 3), 6);
  CHECK_EQ(bulk_stripes(30'000'000, 80'000, 3), 2);
  CHECK_EQ(bulk_stripes(30'000'000, 80'000, 1), limits::stripes_max);
  CHECK_EQ(bulk_stripes(120'000'000, 100'000, 2), 8);
  CHECK_EQ(bulk_stripes(1, 80'000, 100), 2);
  CHECK_EQ(bulk_stripes(UINT64_MAX, UINT32_MAX, 0), limits::stripes_max);
}

// Measured: 2.01 s with chunks of 32 KiB, 2.07 s with 128 KiB, 3.7 s with 512 KiB.
TEST(large_over_a_wan_takes_the_ring) {
  const auto paths = uniform(250 * mbit, 80'000);
  const auto choice = choose(paths, reduce(4, 32 * mib));
  CHECK(choice.algorithm == Algorithm::ring);
  check_between(double(choice.predicted) / 1e6, 1'800, 2'070, "32 MiB");
  CHECK(choice.chunk_bytes >= 32 * kib && choice.chunk_bytes <= 128 * kib);
  CHECK_EQ(choice.stripes, 4);
  // Up to the bandwidth-delay product per peer, and some way beyond, two hops win.
  CHECK(choose(paths, reduce(4, 625'000)).algorithm == Algorithm::direct);
  CHECK(choose(paths, reduce(4, 10 * mib)).algorithm == Algorithm::direct);
}

TEST(the_choice_over_a_wan_changes_once_with_size) {
  for (const std::uint32_t peers : {3, 4, 8, 16, 100}) {
    const auto paths = uniform(1000 * mbit, 50'000);
    int changes = 0;
    auto last = choose(paths, reduce(peers, 64 * kib + 1)).algorithm;
    CHECK(last == Algorithm::direct);
    for (std::uint64_t bytes = 128 * kib; bytes <= 1024 * 1024 * mib; bytes *= 2) {
      const auto now = choose(paths, reduce(peers, bytes)).algorithm;
      changes += now != last ? 1 : 0;
      last = now;
    }
    CHECK(last == Algorithm::ring);
    CHECK_EQ(changes, 1);
  }
}

// Measured over loopback, blocking: P = 4, 1 KiB: ring 173 us, direct exchange 54 us; 64 KiB: 184 and 105 us;
// P = 2, 1 KiB: 33 and 25 us. 64 MiB by ring: 20 ms (P = 2), 60 ms (P = 4).
TEST(loopback_is_predicted_within_a_factor_of_two) {
  struct Fact {
    std::uint32_t peers;
    std::uint64_t bytes;
    Algorithm algorithm;
    double measured_ms;
  };
  const std::vector<Fact> facts{
      {4, kib, Algorithm::ring, 0.173},      {4, kib, Algorithm::exchange, 0.054},
      {4, 64 * kib, Algorithm::ring, 0.184}, {4, 64 * kib, Algorithm::exchange, 0.105},
      {2, kib, Algorithm::ring, 0.033},      {2, kib, Algorithm::exchange, 0.025},
      {3, kib, Algorithm::ring, 0.085},      {3, kib, Algorithm::exchange, 0.035},
      {2, 64 * mib, Algorithm::ring, 20.1},  {4, 64 * mib, Algorithm::ring, 60.2},
  };
  for (const auto& fact : facts) {
    const auto time = predicted_ms(loopback(fact.peers), reduce(fact.peers, fact.bytes), fact.algorithm);
    check_between(time / fact.measured_ms, 0.5, 2,
                  std::to_string(fact.peers) + " peers, " + std::to_string(fact.bytes) + " bytes");
  }
  CHECK(choose(loopback(4), reduce(4, kib)).algorithm == Algorithm::exchange);
  CHECK(choose(loopback(2), reduce(2, 64 * kib)).algorithm == Algorithm::exchange);
  CHECK(choose(loopback(4), reduce(4, 256 * kib)).algorithm == Algorithm::direct);
  const auto large = choose(loopback(4), reduce(4, 64 * mib));
  CHECK(large.algorithm == Algorithm::ring);
  CHECK_EQ(large.chunk_bytes, 256 * kib);
  CHECK_EQ(large.stripes, 2);
}

// Measured: 1 Gbit/s, 100 ms: 16 streams are best, 64 too many; 500 Mbit/s, 80 ms: 4 to 16 are much alike.
TEST(stripes_follow_the_path) {
  CHECK_EQ(stripes_of(Path::host, 8'000'000'000, 30), 2);
  CHECK_EQ(stripes_of(Path::lan, 1000 * mbit, 200), 2);
  CHECK_EQ(stripes_of(Path::lan, 100'000 * mbit, 100), 4);
  CHECK_EQ(stripes_of(Path::wan, 10 * mbit, 20'000), 4);
  CHECK_EQ(stripes_of(Path::wan, 500 * mbit, 80'000), 8);
  CHECK_EQ(stripes_of(Path::wan, 1000 * mbit, 100'000), 16);
  CHECK_EQ(stripes_of(Path::wan, 100'000 * mbit, 300'000), 16);
  CHECK(path_of(uniform(mbit, 1999)) == Path::lan);
  CHECK(path_of(uniform(mbit, 2000)) == Path::wan);
  CHECK(path_of(loopback(2)) == Path::host);
  // Seven flows leave an access line anyway.
  auto direct = reduce(8, 4 * mib);
  direct.algorithm = Algorithm::direct;
  CHECK_EQ(choose(uniform(1000 * mbit, 100'000), direct).stripes, 3);
  direct.algorithm = Algorithm::ring;
  CHECK_EQ(choose(uniform(1000 * mbit, 100'000), direct).stripes, 16);
}

TEST(chunks_leave_the_pipeline_something_to_overlap) {
  Rng rng(3);
  for (int trial = 0; trial < 20'000; ++trial) {
    auto request = reduce(2 + std::uint32_t(rng.below(20)), rng.next() >> (20 + rng.below(40)));
    const auto rtt_us = std::uint32_t(rng.below(300'000));
    const auto choice = choose(uniform(1 + (rng.next() >> (30 + rng.below(30))), rtt_us), request);
    CHECK(choice.stripes >= 1 && choice.stripes <= limits::stripes_max);
    const bool small = rtt_us >= 2'000 && request.bytes < 8 * 32 * kib * request.peers;  // on several streams
    CHECK(choice.chunk_bytes >= (small ? 4 * kib : 32 * kib) && choice.chunk_bytes <= 256 * kib);
    if (choice.algorithm == Algorithm::exchange) continue;
    const auto segment = request.bytes / request.peers + 1;
    CHECK(choice.chunk_bytes <= std::max<std::uint64_t>(segment / (4u * choice.stripes), 32 * kib));
  }
  // A slow link sends small chunks, a fast one large ones: about two milliseconds each.
  const auto chunk = [](std::uint64_t bandwidth) {
    return choose(uniform(bandwidth, 80'000), reduce(4, 512 * mib)).chunk_bytes;
  };
  CHECK_EQ(chunk(10 * mbit), 32 * kib);
  CHECK_EQ(chunk(250 * mbit), 62'464);
  CHECK_EQ(chunk(1000 * mbit), 64 * kib);
}

TEST(quantized_is_direct_where_the_mesh_is_complete) {
  for (const std::uint64_t bytes : {4 * kib, 64 * mib, 4096 * mib}) {
    auto request = reduce(4, bytes);
    request.encoded_bytes = bytes / 4 + bytes / 256;
    CHECK(choose(uniform(1000 * mbit, 200), request).algorithm == Algorithm::direct);
    CHECK(choose(uniform(250 * mbit, 80'000), request).algorithm == Algorithm::direct);
    auto sparse = hints_of(uniform(1000 * mbit, 200));
    sparse.mesh = false;
    CHECK(choose_plan(sparse, 0, request).algorithm == Algorithm::ring);
    request.algorithm = Algorithm::exchange;  // the user's wish comes first, where it is possible
    const auto expected = bytes < mib ? Algorithm::exchange : Algorithm::direct;
    CHECK(choose(uniform(1000 * mbit, 200), request).algorithm == expected);
  }
}

// 16-bit floats travel a ring as 32-bit sums, to and from owners as they are.
TEST(partial_sums_count_in_a_ring) {
  const auto paths = uniform(1000 * mbit, 200);
  auto half = reduce(4, 256 * mib);
  half.partial_bytes = 2 * half.bytes;
  CHECK(choose(paths, reduce(4, 256 * mib)).algorithm == Algorithm::ring);
  CHECK(choose(paths, half).algorithm == Algorithm::direct);
}

TEST(slow_links_beside_the_ring_speak_for_the_ring) {
  auto paths = uniform(1000 * mbit, 20'000);
  CHECK(choose(paths, reduce(4, 8 * mib)).algorithm == Algorithm::direct);
  paths.mesh_bandwidth = 50 * mbit;
  CHECK(choose(paths, reduce(4, 8 * mib)).algorithm == Algorithm::ring);
  auto sparse = hints_of(paths);
  sparse.mesh = false;
  CHECK(choose_plan(sparse, 0, reduce(4, kib)).algorithm == Algorithm::ring);
}

TEST(several_peers_on_far_hosts_take_two_levels) {
  auto paths = uniform(250 * mbit, 80'000);
  paths.hosts = 2;
  paths.host_peers = 4;
  paths.local_bandwidth = 5'000'000'000;
  paths.local_rtt_us = 30;
  CHECK(choose(paths, reduce(8, 64 * mib)).algorithm == Algorithm::two_level);
  auto request = reduce(8, 64 * mib);
  request.available = only(Algorithm::ring) | only(Algorithm::direct);
  CHECK(choose(paths, request).algorithm != Algorithm::two_level);
  paths.host_peers = 1;
  CHECK(choose(paths, reduce(2, 64 * mib)).algorithm == Algorithm::exchange);
}

TEST(a_broadcast_follows_its_own_shape) {
  auto request = reduce(4, 4 * kib);
  request.call = Call::broadcast;
  CHECK(choose(uniform(250 * mbit, 80'000), request).algorithm == Algorithm::exchange);
  request.bytes = 1024 * mib;
  CHECK(choose(uniform(250 * mbit, 80'000), request).algorithm == Algorithm::ring);
  check_between(predicted_ms(uniform(1'000'000'000, 1000), request, Algorithm::ring), 1070, 1085, "chain");
}

TEST(wishes_come_first_where_they_can_be_carried_out) {
  auto hints = hints_of(uniform(1000 * mbit, 200));
  auto request = reduce(4, 256 * mib);
  hints.algorithm = Algorithm::direct;
  CHECK(choose_plan(hints, 0, request).algorithm == Algorithm::direct);
  request.algorithm = Algorithm::ring;
  CHECK(choose_plan(hints, 0, request).algorithm == Algorithm::ring);
  request.algorithm = Algorithm::exchange;  // too large
  CHECK(choose_plan(hints, 0, request).algorithm == Algorithm::direct);
  hints.chunk_bytes = 100'000;
  hints.stripes = 7;
  CHECK_EQ(choose_plan(hints, 0, request).chunk_bytes, 99'968);
  CHECK_EQ(choose_plan(hints, 0, request).stripes, 7);
  hints.chunk_bytes = 1;
  hints.stripes = 255;
  CHECK_EQ(choose_plan(hints, 0, request).chunk_bytes, limits::chunk_bytes_min);
  CHECK_EQ(choose_plan(hints, 0, request).stripes, limits::stripes_max);
  hints.chunk_bytes = UINT32_MAX;
  CHECK(choose_plan(hints, 0, request).chunk_bytes <= limits::chunk_bytes_max / 2);
}

TEST(deterministic_plans_depend_on_nothing_measured) {
  for (const std::uint64_t bytes : {kib, mib, 32 * mib, 1024 * mib}) {
    auto request = reduce(4, bytes);
    request.deterministic = true;
    const auto choice = choose(uniform(250 * mbit, 80'000), request);
    CHECK(choice == choose(uniform(8000 * mbit, 20), request));
    CHECK(choice == choose(loopback(4), request));
  }
}

TEST(groups_have_their_own_paths) {
  PlanHints hints;
  hints.paths = {uniform(250 * mbit, 80'000), uniform(1000 * mbit, 200)};
  hints.paths[1].group = 5;
  CHECK_EQ(paths_of(hints, 0).ring_rtt_us, 80'000);
  CHECK_EQ(paths_of(hints, 5).ring_rtt_us, 200);
  CHECK(paths_of(hints, 6) == GroupPaths{.group = 6});
  // Nothing is known about the group, and the mesh is not complete.
  CHECK(choose_plan(hints, 6, reduce(4, kib)).algorithm == Algorithm::ring);
  CHECK(choose_plan(hints, 6, reduce(1, kib)).algorithm == Algorithm::ring);
  CHECK_EQ(choose_plan(hints, 6, reduce(0, 0)).predicted, 0);
}

TEST(any_hints_give_a_plan_within_its_limits) {
  Rng rng(4);
  check::Generate generate(rng);
  for (int trial = 0; trial < 20'000; ++trial) {
    auto hints = generate.value<PlanHints>();
    PlanRequest request;
    request.peers = std::uint32_t(rng.next() >> rng.below(64));
    request.bytes = rng.next() >> rng.below(64);
    request.partial_bytes = rng.next() >> rng.below(64);
    request.encoded_bytes = rng.chance(0.5) ? 0 : rng.next() >> rng.below(64);
    request.deterministic = rng.chance(0.2);
    const auto group = hints.paths.empty() ? 0 : hints.paths.front().group;
    const auto choice = choose_plan(hints, group, request);
    CHECK(choice.algorithm != Algorithm::automatic);
    CHECK(choice.stripes >= 1 && choice.stripes <= limits::stripes_max);
    CHECK(choice.chunk_bytes >= limits::chunk_bytes_min && choice.chunk_bytes <= limits::chunk_bytes_max / 2);
    CHECK(choice.predicted >= 0);
    CHECK(choice == choose_plan(hints, group, request));
  }
}

}  // namespace pccl
