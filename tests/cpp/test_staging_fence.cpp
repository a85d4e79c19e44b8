// Fences: what they let through may be overwritten at once, and the file shows nothing of it.

#include "check.hpp"
#include "staging_fixture.hpp"

using namespace pccl;
using namespace pccl::check;
using Mode = MemorySink::Mode;

namespace {

// Fences random sets of regions and overwrites them on the spot, until all are.
void overwrite_behind_fences(Capture& capture, State& state, Rng& rng) {
  auto left = state.all();
  while (!left.empty()) {
    std::vector<std::uint32_t> some;
    const auto count = 1 + rng.below(left.size());
    for (std::size_t i = 0; i < count; ++i) {
      const auto at = rng.below(left.size());
      some.push_back(left[at]);
      left.erase(left.begin() + static_cast<std::ptrdiff_t>(at));
    }
    if (!CHECK(capture.fence(some, in_seconds(20)))) return;
    for (const auto region : some) state.overwrite(region);
  }
}

}  // namespace

TEST(regions_behind_a_fence_may_be_overwritten) {
  for (std::uint64_t seed = 1; seed <= 80; ++seed) {
    Rng rng(seed);
    const auto pool = make_pool(1 + seed % 6);
    const auto sink = std::make_shared<MemorySink>();
    State state(random_sizes(seed, 1 + rng.below(100), seed % 2 == 0 ? 2000 : 90'000), seed);
    const auto capture = make_capture(pool, sink, state.spec(1 + seed % 2));
    CHECK(!capture->start());
    overwrite_behind_fences(*capture, state, rng);
    CHECK(capture->wait_released(in_seconds(20)));
    check_saved(*capture, *sink, state);
  }
}

TEST(several_callers_fence_at_the_same_time) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const auto pool = make_pool(2);
    const auto sink = std::make_shared<MemorySink>();
    State state(random_sizes(seed, 90, 30'000), seed);
    const auto capture = make_capture(pool, sink, state.spec(2));
    CHECK(!capture->start());
    std::vector<std::thread> callers;
    for (std::uint32_t caller = 0; caller < 3; ++caller)
      callers.emplace_back([&, caller] {
        for (std::uint32_t region = caller; region < 90; region += 3) {
          CHECK(capture->fence(std::vector{region}, in_seconds(20)));
          state.overwrite(region);
        }
      });
    for (auto& caller : callers) caller.join();
    CHECK(capture->wait_released(in_seconds(20)));
    check_saved(*capture, *sink, state);
  }
}

// What the tests above rely on: the same without fences is found out.
TEST(a_torn_copy_would_show) {
  const auto pool = make_pool(2);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  State state(std::vector<std::size_t>(10, 64'000), 1);
  const auto capture = make_capture(pool, sink, state.spec());
  CHECK(!capture->start());
  REQUIRE(!capture->wait_staged(in_seconds(0.1)));
  REQUIRE(sink->held() == 2);  // so the last region cannot be copied yet: the pool is too small
  {
    const staging::Lock lock(staging::Monitor::here().mutex);  // no sanitizer minds
    state.overwrite(9);
  }
  sink->release_all_from_now();
  CHECK(capture->wait_released(in_seconds(20)));
  CHECK(sink->file != state.expected);
  CHECK(std::equal(sink->file.begin(), sink->file.begin() + 500'000, state.expected.begin()));
  std::copy(state.regions[9].begin(), state.regions[9].end(), state.expected.end() - 64'000);
  CHECK(sink->file == state.expected);  // checksums are of what was written
  CHECK_EQ(capture->region_crcs()[9], kernels::best_crc32().of(state.regions[9].data(), 64'000));
}

TEST(a_fence_waits_for_the_sink_where_the_pool_is_short) {
  const auto pool = make_pool(1);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  State state({200'000, 200'000, 200'000}, 2);
  const auto capture = make_capture(pool, sink, state.spec());
  CHECK(!capture->start());
  const auto before = monotonic_now();
  CHECK(!capture->fence(std::vector{2u}, in_seconds(0.05)));
  CHECK(monotonic_now() - before >= 50 * millisecond);
  CHECK(monotonic_now() - before < 5 * second);
  std::thread disk([&] {
    while (sink->release_one(0.5)) {
    }
  });
  CHECK(capture->fence(std::vector{2u}, in_seconds(20)));
  state.overwrite(2);
  CHECK(capture->fence(std::nullopt, in_seconds(20)));
  state.overwrite_all();
  disk.join();
  CHECK(capture->wait_released(in_seconds(20)));
  check_saved(*capture, *sink, state);
}

TEST(small_regions_far_apart_are_kept_aside) {
  const auto pool = make_pool(2);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  std::vector<std::size_t> sizes;
  for (int i = 0; i < 20; ++i) sizes.insert(sizes.end(), {16, 60'000});
  State state(sizes, 3);
  const auto capture = make_capture(pool, sink, state.spec());
  CHECK(!capture->start());
  std::vector<std::uint32_t> small;
  for (std::uint32_t i = 0; i < 40; i += 2) small.push_back(i);
  CHECK(capture->fence(small, in_seconds(10)));  // although nobody gives slabs back
  for (const auto region : small) state.overwrite(region);
  CHECK(capture->stashed_bytes() > 0);
  CHECK(capture->stashed_bytes() <= 20 * 16);
  sink->release_all_from_now();
  CHECK(capture->wait_released(in_seconds(20)));
  check_saved(*capture, *sink, state);
}

TEST(many_small_regions_are_kept_aside_where_the_pool_is_short) {
  const auto pool = make_pool(1);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  State state(std::vector<std::size_t>(1000, 1000), 4);
  const auto capture = make_capture(pool, sink, state.spec());
  CHECK(!capture->start());
  CHECK(capture->fence(state.all(), in_seconds(10)));
  state.overwrite_all();
  CHECK(capture->stashed_bytes() > 800'000);
  sink->release_all_from_now();
  CHECK(capture->wait_released(in_seconds(20)));
  check_saved(*capture, *sink, state);
}

TEST(what_is_kept_aside_is_bounded) {
  const auto pool = make_pool(1);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  State state(std::vector<std::size_t>(3000, 8000), 5);
  const auto capture = make_capture(pool, sink, state.spec());
  CHECK(!capture->start());
  CHECK(!capture->fence(state.all(), in_seconds(0.5)));
  CHECK(capture->stashed_bytes() <= staging::Stash::bytes_max);
  CHECK(capture->stashed_bytes() > staging::Stash::bytes_max - 8000);
  sink->release_all_from_now();
  CHECK(capture->fence(state.all(), in_seconds(30)));
  state.overwrite_all();
  CHECK(capture->wait_released(in_seconds(30)));
  check_saved(*capture, *sink, state);
}

TEST(unknown_regions_and_none_need_no_waiting) {
  const auto pool = make_pool(1);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  const State state({200'000, 0, 200'000}, 7);
  const auto capture = make_capture(pool, sink, state.spec());
  CHECK(!capture->start());
  CHECK(capture->fence(std::vector<std::uint32_t>{}, in_seconds(1)));
  CHECK(capture->fence(std::vector{1u, 3u, 0xffffffffu}, in_seconds(1)));
  capture->cancel();
  sink->release_all_from_now();
}
