// Regions that somebody else copies: a device's stream, here a thread.

#include "check.hpp"
#include "staging_fixture.hpp"

using namespace pccl;
using namespace pccl::check;
using Mode = MemorySink::Mode;
using staging::ForeignPart;

namespace {

CaptureSpec with_foreign(const State& state, std::vector<std::uint32_t> foreign) {
  auto spec = state.spec();
  for (const auto index : foreign) spec.regions[index].data = nullptr;
  spec.foreign = std::move(foreign);
  return spec;
}

void fill(const State& state, const ForeignPart& part) {
  std::memcpy(part.memory, state.regions[part.region].data() + part.at, part.bytes);
}

// Several parts on their way at a time, done in any order.
void copy_as_a_device(Capture& capture, const State& state, Rng& rng) {
  std::vector<ForeignPart> under_way;
  for (;;) {
    auto part = capture.next_foreign(in_seconds(under_way.empty() ? 5 : 0));
    if (part) under_way.push_back(*part);
    if (under_way.empty()) return;
    if (part && rng.chance(0.5)) continue;
    const auto at = rng.below(under_way.size());
    fill(state, under_way[at]);
    CHECK(!capture.foreign_done(under_way[at].region, under_way[at].at));
    under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(at));
  }
}

}  // namespace

TEST(foreign_and_own_regions_mixed) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    const auto pool = make_pool(1 + seed % 4);
    const auto sink = std::make_shared<MemorySink>();
    State state(random_sizes(seed, 1 + rng.below(40), 90'000), seed);
    std::vector<std::uint32_t> foreign, own;
    for (std::uint32_t i = 0; i < state.regions.size(); ++i) (rng.chance(0.5) ? foreign : own).push_back(i);
    const auto capture = make_capture(pool, sink, with_foreign(state, foreign));
    CHECK(!capture->start());
    std::thread device([&] { copy_as_a_device(*capture, state, rng); });
    CHECK(capture->fence(own, in_seconds(20)));
    for (const auto region : own) state.overwrite(region);
    CHECK(capture->fence(foreign, in_seconds(20)));
    device.join();
    CHECK(capture->wait_staged(in_seconds(20)));
    CHECK(capture->wait_released(in_seconds(20)));
    check_saved(*capture, *sink, state);
  }
}

TEST(a_fence_of_own_regions_does_not_wait_for_foreign_ones) {
  const auto pool = make_pool(8);
  const auto sink = std::make_shared<MemorySink>();
  State state({50'000, 50'000, 50'000}, 1);
  const auto capture = make_capture(pool, sink, with_foreign(state, {1}));
  CHECK(!capture->start());
  CHECK(capture->fence(std::vector{0u, 2u}, in_seconds(10)));
  state.overwrite(0);
  state.overwrite(2);
  CHECK(!capture->fence(std::vector{1u}, in_seconds(0.02)));
  CHECK(!capture->wait_staged(in_seconds(0.02)));
  Rng rng(1);
  copy_as_a_device(*capture, state, rng);
  CHECK(capture->wait_released(in_seconds(10)));
  check_saved(*capture, *sink, state);
}

TEST(parts_that_were_not_handed_out_are_refused) {
  const auto pool = make_pool(4);
  const auto sink = std::make_shared<MemorySink>();
  const State state({1000, 150'000}, 2);
  const auto capture = make_capture(pool, sink, with_foreign(state, {1}));
  CHECK(!capture->next_foreign(in_seconds(0.01)));  // not started
  CHECK(!capture->start());
  CHECK_EQ(capture->foreign_done(1, 0).code, ErrorCode::usage);
  const auto part = capture->next_foreign(in_seconds(5));
  REQUIRE(part.has_value());
  CHECK_EQ(part->region, 1);
  CHECK_EQ(capture->foreign_done(0, 0).code, ErrorCode::usage);
  CHECK_EQ(capture->foreign_done(1, 4096).code, ErrorCode::usage);
  CHECK_EQ(capture->foreign_done(7, 0).code, ErrorCode::usage);
  fill(state, *part);
  CHECK(!capture->foreign_done(part->region, part->at));
  CHECK_EQ(capture->foreign_done(part->region, part->at).code, ErrorCode::usage);
  capture->cancel();
}

TEST(a_slab_is_not_used_again_while_a_device_writes_to_it) {
  const auto pool = make_pool(2);
  const auto sink = std::make_shared<MemorySink>();
  const State state({100'000}, 3);
  const auto capture = make_capture(pool, sink, with_foreign(state, {0}));
  CHECK(!capture->start());
  const auto part = capture->next_foreign(in_seconds(5));
  REQUIRE(part.has_value());
  capture->cancel();
  CHECK(!capture->next_foreign(in_seconds(1)));
  CHECK_EQ(pool->free(), 1);
  CHECK(!capture->foreign_done(part->region, part->at));
  CHECK_EQ(pool->free(), 2);
}
