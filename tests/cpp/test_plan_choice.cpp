// Which plan operations take: what was measured decides, unless the user does, or the run is deterministic.
#include "check.hpp"
#include "runtime/plan_choice.hpp"

namespace pccl {

namespace {

constexpr std::uint64_t kib = 1 << 10, mib = 1 << 20;

Descriptor reduce(std::uint64_t bytes, Algorithm algorithm = Algorithm::automatic) {
  Descriptor d;
  d.call = Call::all_reduce;
  d.algorithm = algorithm;
  d.tensors = {{DType::float32, bytes / 4}};
  return d;
}

PlanHints mesh(std::uint64_t bandwidth = 0, std::uint32_t rtt_us = 0, std::uint16_t hosts = 1) {
  PlanHints hints;
  hints.mesh = true;
  GroupPaths paths;
  paths.ring_bandwidth = paths.mesh_bandwidth = bandwidth;
  paths.ring_rtt_us = paths.mesh_rtt_us = rtt_us;
  paths.hosts = hosts;
  hints.paths = {paths};
  return hints;
}

Algorithm chosen(const Descriptor& d, const PlanHints& hints, std::uint32_t world) {
  return plan_descriptor(d, hints, {0, world, false}).algorithm;
}

}  // namespace

// Measured on loopback: one hop up to 64 KiB, two up to about 1 MiB, then the ring.
TEST(on_one_host) {
  for (const std::uint32_t world : {2, 3, 4}) {
    for (const auto bytes : {kib, 16 * kib, 64 * kib})
      CHECK(chosen(reduce(bytes), mesh(), world) == Algorithm::exchange);
    for (const auto bytes : {4 * mib, 64 * mib, 256 * mib})
      CHECK(chosen(reduce(bytes), mesh(), world) == Algorithm::ring);
  }
  for (const std::uint32_t world : {3, 4})
    for (const auto bytes : {128 * kib, 512 * kib})
      CHECK(chosen(reduce(bytes), mesh(), world) == Algorithm::direct);
}

TEST(far_apart_two_hops_win_for_longer) {
  const auto far = mesh(31'250'000, 80'000, 4);  // 250 Mbit/s
  CHECK(chosen(reduce(64 * kib), far, 4) == Algorithm::exchange);
  CHECK(chosen(reduce(64 * kib + 4), far, 4) == Algorithm::direct);
  CHECK(chosen(reduce(8 * mib), far, 4) == Algorithm::direct);
  CHECK(chosen(reduce(64 * mib), far, 4) == Algorithm::ring);
  CHECK(plan_descriptor(reduce(64 * mib), far, {0, 4, false}).chunk_bytes <= 128 * kib);
  const auto one_kernel = mesh(31'250'000, 80'000, 1);  // namespaces of one host, far apart all the same
  CHECK(chosen(reduce(8 * mib), one_kernel, 4) == Algorithm::direct);
}

TEST(the_user_wins_where_it_can_be_done) {
  CHECK(chosen(reduce(kib, Algorithm::ring), mesh(), 4) == Algorithm::ring);
  CHECK(chosen(reduce(64 * mib, Algorithm::direct), mesh(), 4) == Algorithm::direct);
  CHECK(chosen(reduce(64 * mib, Algorithm::exchange), mesh(), 4) == Algorithm::ring);
  CHECK(chosen(reduce(64 * mib, Algorithm::direct), PlanHints{}, 4) == Algorithm::ring);
  auto weighted = reduce(kib);
  weighted.weighted = true;
  CHECK(chosen(weighted, mesh(), 4) == Algorithm::direct);
}

TEST(quantized_goes_to_owners_whatever_is_asked_for) {
  auto d = reduce(64 * mib, Algorithm::ring);
  d.quantization = Quantization::int8;
  d.quantization_block = 256;
  CHECK(chosen(d, mesh(), 4) == Algorithm::direct);
  CHECK(plan_descriptor(d, mesh(), {0, 4, false}).quantization == Quantization::int8);
  CHECK(plan_descriptor(d, mesh(), {0, 1, false}).quantization == Quantization::none);
  CHECK(plan_descriptor(d, PlanHints{}, {0, 4, false}).quantization == Quantization::none);
}

TEST(a_broadcast_goes_in_one_hop_or_two_where_that_is_faster) {
  auto d = reduce(kib);
  d.call = Call::broadcast;
  CHECK(chosen(d, mesh(), 4) == Algorithm::exchange);
  CHECK(chosen(d, PlanHints{}, 4) == Algorithm::ring);
  d = reduce(mib);
  d.call = Call::broadcast;
  CHECK(chosen(d, mesh(1'000'000'000, 80'000, 4), 4) == Algorithm::direct);
}

TEST(blocks_go_straight) {
  auto d = reduce(kib);
  d.call = Call::all_gather;
  d.blocks = 4;
  CHECK(chosen(d, mesh(), 4) == Algorithm::direct);
}

TEST(deterministic_runs_choose_by_size_and_number_alone) {
  auto near = mesh(5'000'000'000, 30, 1), far = mesh(1'000'000, 200'000, 4);
  near.deterministic = far.deterministic = true;
  for (const std::uint32_t world : {2, 3, 4, 8, 16})
    for (std::uint64_t bytes = 4; bytes <= 1024 * mib; bytes *= 2)
      CHECK(plan_descriptor(reduce(bytes), near, {0, world, false}) ==
            plan_descriptor(reduce(bytes), far, {0, world, false}));
}

TEST(hostile_hints_give_chunks_that_fit) {
  for (const std::uint64_t bandwidth : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}})
    for (const std::uint32_t rtt : {0u, 1u, ~0u}) {
      auto hints = mesh(bandwidth, rtt, 0xffff);
      hints.chunk_bytes = ~0u;
      for (const std::uint32_t world : {1, 2, 1000}) {
        const auto plan = plan_descriptor(reduce(64 * mib), hints, {0, world, false});
        CHECK(plan.chunk_bytes >= limits::chunk_bytes_min);
        CHECK(plan.chunk_bytes <= limits::chunk_bytes_max / 2);
      }
    }
}

}  // namespace pccl
