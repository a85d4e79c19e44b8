// Links of several stripes, through a proxy that breaks single ones: nothing is lost, nobody hears of it.
#include <sys/resource.h>

#include "proxy.hpp"
#include "runtime_fixture.hpp"

using namespace pccl;
using namespace pccl::testing;

namespace {

// Two peers; all stripes of their link pass a proxy in front of the first, whom the second dials. Chunks go
// over them, unless `ways` says otherwise.
struct Linked {
  Run run;
  std::uint16_t port = free_port();
  Proxy proxy;
  std::unique_ptr<PeerRuntime> first, second;

  explicit Linked(std::uint8_t stripes, Proxy::Look look = {}, Timing timing = {},
                  std::function<void(PeerOptions&)> change = {}, LocalWays ways = 0)
      : run(timing), proxy(port, std::move(look)) {
    const auto set = [&](PeerOptions& o) {
      o.stripes = stripes;
      o.ways = ways;
      if (change) change(o);
    };
    first = run.peer(2, [&](PeerOptions& o) {
      set(o);
      o.listen = "127.0.0.1:" + std::to_string(port);
      o.advertise = {"127.0.0.1:" + std::to_string(proxy.port())};
    });
    while (first != nullptr && first->status(false).peer == no_peer)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    second = run.peer(2, set);
    CHECK_EQ(int(admitted(*first).code), 0);
    CHECK_EQ(int(admitted(*second).code), 0);
  }
  LinkInfo link(PeerRuntime& at) {
    const auto links = at.status(true).links;
    return links.empty() ? LinkInfo{} : links.begin()->second;
  }
  bool wait(const std::function<bool()>& until) {
    for (int i = 0; i < 1000; ++i) {
      if (until()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  bool has(std::uint32_t stripes) {
    return wait([&] { return link(*first).stripes == stripes && link(*second).stripes == stripes; });
  }
  // The first attempt's sum, whatever happened to stripes.
  void sum(std::size_t count, bool in_place) {
    auto a = start_sum(*first, count, 1, in_place), b = start_sum(*second, count, 2, in_place);
    for (const auto& operation : {a, b}) {
      const auto result = finish(*operation);
      CHECK_EQ(result.outcome.error.text, "");
      CHECK_EQ(result.outcome.attempts, 1u);
      CHECK_EQ(result.outcome.contributors.size(), std::size_t{2});
      CHECK(holds(in_place ? operation->in : operation->out, 3, 2));
    }
  }
};

constexpr std::size_t mib = 1u << 20;

// For what keeps both ends busy for seconds: on a busy machine nobody is lost over that.
Timing patient() {
  Timing timing;
  timing.heartbeats_missed_max = 40;
  return timing;
}

// ThreadSanitizer makes both ends so slow that stripes which work are given up as silent: these run without
// it.
#ifdef __SANITIZE_THREAD__
constexpr bool too_slow = true;
#else
constexpr bool too_slow = false;
#endif

}  // namespace

TEST(a_link_has_the_stripes_that_its_path_needs) {
  Linked as_it_is(0);
  CHECK(as_it_is.has(2));  // one host
  CHECK(as_it_is.link(*as_it_is.first).path == Path::host);
  Linked many(5);
  CHECK(many.has(5));
  many.sum(100'000, false);
}

TEST(stripes_break_one_by_one_while_a_sum_runs) {
  if (too_slow) return;
  for (const bool in_place : {false, true})
    for (const bool reset : {false, true}) {
      Linked linked(4, {}, patient());
      REQUIRE(linked.has(4));
      const auto view = linked.first->status(false).view.id;
      std::atomic<bool> over{false};
      std::thread killer([&] {
        for (std::size_t i = 0; !over; ++i) {
          std::this_thread::sleep_for(std::chrono::milliseconds(15));
          // Not the last one: some of those alive may be on their way to become part of the link.
          const auto alive = linked.proxy.alive();
          const auto has = std::min(linked.link(*linked.first).stripes, linked.link(*linked.second).stripes);
          if (has > 2 && alive.size() == 4) linked.proxy.kill(alive[i % alive.size()], reset);
        }
      });
      for (int round = 0; round < 6; ++round) linked.sum(4 * mib, in_place);
      over = true;
      killer.join();
      CHECK(linked.first->status(false).view.id == view);
      CHECK(linked.link(*linked.first).mended > 0);
      CHECK(linked.has(4));
    }
}

// What a stripe had said of chunks that stay where they are is said again; nobody reads too early or too
// long.
TEST(stripes_break_while_only_places_travel) {
  if (too_slow) return;
  for (const bool in_place : {false, true})
    for (const bool reset : {false, true}) {
      Linked linked(4, {}, patient(), {}, read_process);
      REQUIRE(linked.has(4));
      const auto view = linked.first->status(false).view.id;
      std::atomic<bool> over{false};
      std::thread killer([&] {
        for (std::size_t i = 0; !over; ++i) {
          std::this_thread::sleep_for(std::chrono::milliseconds(10));
          const auto alive = linked.proxy.alive();
          const auto has = std::min(linked.link(*linked.first).stripes, linked.link(*linked.second).stripes);
          if (has > 2 && alive.size() == 4) linked.proxy.kill(alive[i % 2], reset);
        }
      });
      for (int round = 0; round < 30; ++round) linked.sum(4 * mib, in_place);
      over = true;
      killer.join();
      CHECK(linked.first->status(false).view.id == view);
      CHECK(linked.link(*linked.first).mended > 0);
      CHECK(linked.has(4));
      CHECK_EQ(linked.link(*linked.first).transport, "cma");
    }
}

// Wherever in the stream it happens: in a header, in a chunk, between them, in the hello.
TEST(a_stripe_breaks_after_any_number_of_bytes) {
  Rng rng(7);
  for (int round = 0; round < 12; ++round) {
    const auto victim = 1 + rng.below(2);
    const auto way = Proxy::Way(rng.below(2));
    const auto limit = round < 4 ? 1 + rng.below(400) : rng.below(2 * mib);
    std::atomic<int> left{3};
    Linked linked(
        3,
        [&](std::size_t index, Proxy::Way at, std::uint8_t*, std::size_t bytes, std::uint64_t before) {
          const bool hit = index % 3 == victim && at == way && before + bytes > limit;
          return !hit || left.fetch_sub(1) <= 0;
        },
        patient());
    const auto view = linked.first->status(false).view.id;
    for (const bool in_place : {false, true}) linked.sum(mib + 3, in_place);
    CHECK(linked.first->status(false).view.id == view);
    CHECK(linked.has(3));
  }
}

TEST(the_last_stripe_takes_the_link_with_it) {
  Linked linked(3);
  REQUIRE(linked.has(3));
  const auto view = linked.first->status(false).view.id;
  for (const auto i : linked.proxy.alive()) linked.proxy.kill(i);
  CHECK(linked.wait([&] { return linked.first->status(false).view.id > view; }));
  linked.sum(mib, true);
  CHECK(linked.has(3));
}

// One direction of one stripe is cut: nobody hears of it but by the silence of what was sent.
TEST(a_stripe_that_falls_silent_is_given_up) {
  if (too_slow) return;
  Timing timing;
  timing.heartbeat = 50 * millisecond;
  for (const auto way : {Proxy::Way::to_peer, Proxy::Way::from_peer}) {
    Linked linked(3, {}, timing);
    REQUIRE(linked.has(3));
    linked.proxy.silence(linked.proxy.alive()[1], way, true);
    std::thread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      linked.proxy.kill(1);
    });
    linked.sum(4 * mib, false);
    later.join();
  }
}

// Anywhere in the stream: a header, a message, a chunk. What was checked is sent again elsewhere.
TEST(bytes_that_change_on_the_way_are_seen_and_sent_again) {
  Rng rng(11);
  std::uint32_t mended = 0;
  for (int round = 0; round < 10; ++round) {
    const auto at = round < 3 ? 150 + rng.below(300) : 3000 + rng.below(mib);
    const auto way = Proxy::Way(rng.below(2));
    std::atomic<bool> done{false};
    const auto corrupt = [&](std::size_t index, Proxy::Way now, std::uint8_t* bytes, std::size_t count,
                             std::uint64_t before) {
      if (index == 0 || now != way || at < before || at >= before + count || done.exchange(true)) return true;
      bytes[at - before] ^= 0x10;
      return true;
    };
    Linked linked(3, corrupt, {}, [](PeerOptions& o) { o.checksum = o.listen.empty(); });
    const auto view = linked.first->status(false).view.id;
    for (int i = 0; i < 2; ++i) linked.sum(mib, i == 1);
    CHECK(linked.first->status(false).view.id == view);
    mended += linked.link(*linked.first).mended;
  }
  CHECK(mended > 0);
}

TEST(few_descriptors_mean_few_stripes) {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const auto low = net::descriptors().open + 90;
  const rlimit limit{low, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  {
    Linked linked(16);
    CHECK(linked.wait([&] { return linked.link(*linked.second).stripes > 1; }));
    linked.sum(mib, false);
    CHECK(linked.link(*linked.second).stripes < 16);
    CHECK(net::descriptors().open < low);
  }
  CHECK_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}
