// Captures: values and checksums of whole files, pools smaller than the state, several captures at a time,
// foreign regions, and every way in which one ends.

#include "check.hpp"
#include "staging_fixture.hpp"

using namespace pccl;
using namespace pccl::check;
using Mode = MemorySink::Mode;

TEST(random_states_arrive_as_they_were) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const auto pool = make_pool(1 + seed % 5);
    const auto sink = std::make_shared<MemorySink>();
    State state(random_sizes(seed, seed * 3 % 80, 50'000), seed, seed % 4 * 1111);
    const auto capture = make_capture(pool, sink, state.spec(1 + seed % 3));
    CHECK(!capture->start());
    CHECK(capture->wait_staged(in_seconds(20)));
    state.overwrite_all();
    CHECK(capture->wait_released(in_seconds(20)));
    check_saved(*capture, *sink, state);
    CHECK_EQ(pool->free(), pool->slabs());
    CHECK_EQ(capture->progress().released, state.expected.size());
  }
}

TEST(nobody_waits_and_it_is_staged_all_the_same) {
  const auto pool = make_pool(2);
  const auto sink = std::make_shared<MemorySink>();
  const State state(std::vector<std::size_t>(40, 30'000), 1);
  const auto capture = make_capture(pool, sink, state.spec());
  CHECK(!capture->start());
  CHECK(capture->wait_released(in_seconds(20)));
  check_saved(*capture, *sink, state);
  CHECK_EQ(capture->callers_bytes(), 0);
  CHECK(capture->staged_seconds() > 0);
}

TEST(a_small_pool_waits_for_the_sink) {
  const auto pool = make_pool(2);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  State state(std::vector<std::size_t>(10, 64'000), 2);
  const auto capture = make_capture(pool, sink, state.spec(2));
  CHECK(!capture->start());
  CHECK(!capture->wait_staged(in_seconds(0.1)));
  CHECK_EQ(sink->held(), 2);
  CHECK_EQ(capture->progress().staged, 2 * slab_bytes);
  CHECK_EQ(pool->free(), 0);
  std::thread slow([&] {
    for (int i = 0; i < 10; ++i) sink->release_one();
  });
  CHECK(capture->wait_staged(in_seconds(20)));
  slow.join();
  CHECK(capture->wait_released(in_seconds(20)));
  check_saved(*capture, *sink, state);
}

TEST(copy_threads_leave_untouched_memory_alone_while_the_sink_keeps_up) {
  const auto pool = make_fresh_pool(30);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  State state(std::vector<std::size_t>(20, 64'000), 3);
  auto spec = state.spec(1);
  spec.patience = 60 * second;
  const auto capture = make_capture(pool, sink, std::move(spec));
  CHECK(!capture->start());
  for (int i = 0; i < 16; ++i) {
    REQUIRE(sink->release_one());
    CHECK(sink->held() <= 4);
  }
  sink->release_all_from_now();
  CHECK(capture->wait_released(in_seconds(20)));
  check_saved(*capture, *sink, state);
}

TEST(who_waits_for_copies_is_given_untouched_memory) {
  const auto pool = make_fresh_pool(30);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  State state(std::vector<std::size_t>(20, 64'000), 4);
  const auto capture = make_capture(pool, sink, state.spec(1));
  CHECK(!capture->start());
  CHECK(capture->fence(state.all(), in_seconds(20)));  // although the sink gives nothing back
  state.overwrite_all();
  sink->release_all_from_now();
  CHECK(capture->wait_released(in_seconds(20)));
  check_saved(*capture, *sink, state);
}

TEST(a_slow_sink_is_waited_for_once) {
  const auto pool = make_fresh_pool(30);
  const auto sink = std::make_shared<MemorySink>(Mode::held);
  const State state(std::vector<std::size_t>(20, 64'000), 5);
  auto spec = state.spec(1);
  spec.patience = 0;
  const auto capture = make_capture(pool, sink, std::move(spec));
  CHECK(!capture->start());
  const auto until = in_seconds(20);
  while (sink->held() < 4 && monotonic_now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK_EQ(sink->held(), 4);
  REQUIRE(sink->release_one());
  while (!capture->is_staged() && monotonic_now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(capture->is_staged());
  sink->release_all_from_now();
  CHECK(capture->wait_released(in_seconds(20)));
  check_saved(*capture, *sink, state);
}

TEST(the_older_of_two_captures_comes_first) {
  const auto pool = make_pool(2);
  const auto first = std::make_shared<MemorySink>(Mode::held), second = std::make_shared<MemorySink>();
  State a(std::vector<std::size_t>(10, 64'000), 3), b(std::vector<std::size_t>(7, 50'000), 4);
  const auto older = make_capture(pool, first, a.spec()), younger = make_capture(pool, second, b.spec());
  CHECK(!older->start());
  CHECK(!younger->start());
  CHECK(!younger->fence(std::nullopt, in_seconds(0.05)));
  CHECK_EQ(younger->progress().staged, 0);
  first->release_all_from_now();
  CHECK(younger->fence(std::nullopt, in_seconds(20)));
  b.overwrite_all();
  CHECK(older->wait_staged(in_seconds(20)));  // it has its slabs, and may still fill the last one
  CHECK(older->wait_released(in_seconds(20)));
  CHECK(younger->wait_released(in_seconds(20)));
  check_saved(*older, *first, a);
  check_saved(*younger, *second, b);
}

TEST(many_captures_from_many_threads_share_a_pool) {
  const auto pool = make_pool(3);
  std::vector<std::thread> savers;
  for (std::uint64_t saver = 1; saver <= 4; ++saver)
    savers.emplace_back([&pool, saver] {
      for (std::uint64_t turn = 0; turn < 8; ++turn) {
        const auto sink = std::make_shared<MemorySink>();
        State state(random_sizes(saver * 100 + turn, 20, 40'000), turn);
        auto capture = Capture::make(pool, sink, state.spec(2));
        if (!CHECK(bool(capture)) || !CHECK(!(*capture)->start())) return;
        CHECK((*capture)->fence(std::nullopt, in_seconds(30)));
        state.overwrite_all();
        CHECK((*capture)->wait_released(in_seconds(30)));
        CHECK(sink->file == state.expected);
      }
    });
  for (auto& saver : savers) saver.join();
  CHECK_EQ(pool->free(), 3);
}

TEST(ten_thousand_tiny_regions_start_at_once) {
  const auto pool = make_pool(4);
  const auto sink = std::make_shared<MemorySink>();
  State state(std::vector<std::size_t>(10'000, 4), 5);
  const auto capture = make_capture(pool, sink, state.spec());
  const auto before = monotonic_now();
  CHECK(!capture->start());
  CHECK(monotonic_now() - before < 200 * millisecond);  // far above what it takes; the bench says how much
  CHECK(capture->wait_released(in_seconds(20)));
  check_saved(*capture, *sink, state);
}

TEST(empty_files) {
  const auto pool = make_pool(1);
  for (const auto& sizes : {std::vector<std::size_t>{}, std::vector<std::size_t>{0, 0, 0}}) {
    const auto sink = std::make_shared<MemorySink>();
    const State state(sizes, 1, 0);
    const auto capture = make_capture(pool, sink, state.spec());
    CHECK(!capture->start());
    CHECK(capture->fence(std::nullopt, in_seconds(1)));
    CHECK(capture->wait_staged(in_seconds(1)));
    CHECK(capture->wait_released(in_seconds(1)));
    CHECK_EQ(capture->region_crcs().size(), sizes.size());
    CHECK_EQ(capture->block_crcs().size(), 0);
  }
}

TEST(an_error_of_the_sink_ends_it) {
  const auto pool = make_pool(2);
  const auto sink = std::make_shared<MemorySink>();
  sink->error = {ErrorCode::checkpoint, "no space"};
  const State state(std::vector<std::size_t>(10, 64'000), 6);
  const auto capture = make_capture(pool, sink, state.spec());
  CHECK(!capture->start());
  CHECK(capture->wait_staged(in_seconds(10)));
  CHECK_EQ(capture->error().text, "no space");
  CHECK(capture->fence(std::nullopt, in_seconds(10)));  // nothing of it is to be protected any more
  CHECK(capture->wait_released(in_seconds(10)));
  CHECK_EQ(pool->free(), 2);
  CHECK(!pool->close());
}

TEST(cancelled_while_others_wait) {
  for (int turn = 0; turn < 30; ++turn) {
    const auto pool = make_pool(2);
    const auto sink = std::make_shared<MemorySink>(Mode::held);
    State state(std::vector<std::size_t>(20, 64'000), 7);
    const auto capture = make_capture(pool, sink, state.spec(2));
    CHECK(!capture->start());
    std::vector<std::thread> waiting;
    waiting.emplace_back([&] { CHECK(capture->fence(std::nullopt, in_seconds(20))); });
    waiting.emplace_back([&] { CHECK(capture->wait_staged(in_seconds(20))); });
    waiting.emplace_back([&] { CHECK(capture->wait_released(in_seconds(20))); });
    if (turn % 3 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(turn % 7));
    capture->cancel();
    state.overwrite_all();  // a thread that still reads would be seen by a sanitizer
    for (auto& thread : waiting) thread.join();
    CHECK(capture->has_ended());
    sink->release_all_from_now();
    CHECK_EQ(pool->free(), 2);
  }
}

TEST(senseless_captures_are_refused) {
  const auto pool = make_pool(1);
  const auto sink = std::make_shared<MemorySink>();
  const State state({100, 200}, 8);
  const auto refused = [&](auto change) {
    auto spec = state.spec();
    change(spec);
    const auto made = Capture::make(pool, sink, std::move(spec));
    return !made && made.error().code == ErrorCode::usage;
  };
  CHECK(refused([](CaptureSpec& spec) { spec.block_bytes = 0; }));
  CHECK(refused([](CaptureSpec& spec) { spec.block_bytes = 3 * 4096; }));
  CHECK(refused([](CaptureSpec& spec) { spec.threads = 0; }));
  CHECK(refused([](CaptureSpec& spec) { spec.threads = 1000; }));
  CHECK(refused([](CaptureSpec& spec) { spec.foreign = {2}; }));
  CHECK(refused([](CaptureSpec& spec) { spec.regions[1].data = nullptr; }));
  CHECK(refused([](CaptureSpec& spec) { spec.regions[1].bytes = ~std::uint64_t{0}; }));
  const auto capture = make_capture(pool, sink, state.spec());
  CHECK(!capture->start());
  CHECK_EQ(capture->start().code, ErrorCode::usage);
  CHECK(capture->wait_released(in_seconds(5)));
  CHECK(!pool->close());
  CHECK_EQ(make_capture(pool, sink, state.spec())->start().code, ErrorCode::usage);
}
