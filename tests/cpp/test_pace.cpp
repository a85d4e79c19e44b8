// How fast the stripes of a long path may send together.
#include "check.hpp"
#include "runtime/pace.hpp"

namespace pccl {
namespace {

// Windows of a link on a path of 100 ms.
struct Line {
  static constexpr auto rtt = 100 * millisecond;

  std::optional<std::uint64_t> pass(Duration time, std::uint64_t bytes, std::uint64_t again = 0,
                                    Duration queue = 0) {
    now += time;
    seen.delivered += bytes;
    seen.segments += bytes / 1000;
    seen.segments_again += again;
    seen.rtt_least = rtt;
    seen.rtt = rtt + queue;
    return pace.look(now, seen);
  }
  void begin() {
    CHECK(!pass(0, 0));
    CHECK(!pass(rtt + rtt / 4, 1'000'000));
  }

  Pace pace;
  Instant now = second;
  Pace::Seen seen;
};

}  // namespace

TEST(nothing_is_bounded_where_no_queue_is_full) {
  Line line;
  line.begin();
  for (int i = 0; i < 20; ++i)
    CHECK(!line.pass(Line::rtt, 10'000'000, 10, 20 * millisecond));  // one in a thousand is chance
}

TEST(stripes_that_overflow_a_queue_are_bounded_by_what_arrived) {
  Line line;
  line.begin();
  CHECK(!line.pass(Line::rtt, 10'000'000));
  const auto bounded = line.pass(Line::rtt, 9'000'000, 2000);
  REQUIRE(bounded.has_value());
  CHECK_EQ(*bounded, 97'000'000u);
  CHECK(!line.pass(Line::rtt, 9'000'000, 2000));  // what is held back shows a round trip later
  const auto more = line.pass(Line::rtt, 10'000'000);
  REQUIRE(more.has_value());
  CHECK(*more > *bounded && *more < 110'000'000);
  CHECK(!line.pass(Line::rtt, 1'000'000));  // nobody asked for more
}

TEST(a_queue_that_stands_is_as_good_as_one_that_overflows) {
  Line line;
  line.begin();
  CHECK(!line.pass(Line::rtt, 10'000'000, 0, 49 * millisecond));
  const auto bounded = line.pass(Line::rtt, 10'000'000, 0, 60 * millisecond);
  REQUIRE(bounded.has_value());
  CHECK_EQ(*bounded, 97'000'000u);
}

TEST(windows_with_a_pause_tell_no_more_than_how_fast_it_is_at_least) {
  Line line;
  line.begin();
  CHECK(!line.pass(Line::rtt, 10'000'000));
  line.pace.idle();
  CHECK(!line.pace.due(line.now));
  CHECK(!line.pass(10 * second, 1'000'000, 1000));  // neither a bound nor what a bound is taken from
  CHECK(!line.pass(Line::rtt + Line::rtt / 4, 1'000'000));
  for (int i = 0; i < 6; ++i) CHECK(!line.pass(Line::rtt, 5'000'000));
  const auto bounded = line.pass(Line::rtt, 5'000'000, 2000);
  REQUIRE(bounded.has_value());
  CHECK_EQ(*bounded, 97'000'000u);
}

// Of a line of 100 MB/s: what passes of all that may leave.
namespace {
struct Paced : Line {
  double may = 1e8;
  void window(double line, double lost, Duration queue = 0) {
    const auto bytes = std::uint64_t(std::min(line, may) / 10);
    const auto bound = pass(rtt, bytes, std::uint64_t(double(bytes) / 1000 * lost), queue);
    if (bound) may = double(*bound);
  }
};
}  // namespace

TEST(after_an_outage_it_is_soon_as_fast_as_before) {
  Paced line;
  line.seen.at_once = 8 * 14480;
  line.begin();
  line.window(1e8, 0, 60 * millisecond);
  CHECK_EQ(line.may, 97e6);
  for (int i = 0; i < 40; ++i) line.window(1e6, 0.5);
  CHECK(line.may >= 1e6);  // what new streams would begin with
  for (int i = 0; i < 30; ++i) line.window(1e8, 0);
  CHECK(line.may >= 8e7);
}

TEST(what_is_lost_at_any_speed_slows_nothing_down) {
  Paced line;
  line.begin();
  for (int i = 0; i < 300; ++i) {
    line.window(1e8, 0.03);
    CHECK(line.may >= 7e7);
  }
  line.window(1e8, 0.03, 80 * millisecond);  // a queue does
  line.window(1e8, 0.03, 80 * millisecond);
  line.window(1e8, 0.03, 80 * millisecond);
  CHECK(line.may < 1e8);
}

TEST(where_nothing_arrived_there_is_a_bound_all_the_same) {
  Paced line;
  line.begin();
  for (int i = 0; i < 10; ++i) line.window(0, 0, 60 * millisecond);
  CHECK(line.may >= 1 && line.may < 1e8);
}

// The sums are smaller then than they were.
TEST(a_stripe_that_broke_says_nothing) {
  Line line;
  line.begin();
  CHECK(!line.pass(Line::rtt, 10'000'000));
  line.seen.delivered = 0;
  line.seen.segments_again = 0;
  CHECK(!line.pass(Line::rtt, 1'000, 5'000));
}

// Its repetitions are gone from the sum, while the others have brought more than it ever had.
TEST(a_stripe_that_broke_late_says_nothing_either) {
  Line line;
  line.begin();
  CHECK(!line.pass(Line::rtt, 10'000'000, 10));
  line.seen.segments_again = 0;
  CHECK(!line.pass(Line::rtt, 10'000'000));
}

}  // namespace pccl
