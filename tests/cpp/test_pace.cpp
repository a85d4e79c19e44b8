// How fast the stripes of a long path may send together.
#include <algorithm>
#include <vector>

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
  line.seen.at_least = 8 * 64 << 10;
  line.begin();
  line.window(1e8, 0, 60 * millisecond);
  CHECK_EQ(line.may, 97e6);
  for (int i = 0; i < 40; ++i) line.window(1e6, 0.5);
  CHECK(line.may >= 8 * 64 << 10);  // what the kernel keeps to
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

namespace {
// A line that links share, with a queue; what each sends unbounded would fill it. Nothing but paces holds
// back.
struct Shared {
  double bytes_per_second;
  Duration rtt, queue_most;
  double chance = 0;
  struct Sender {
    Pace pace;
    Pace::Seen seen;
    double may = 0, delivered = 0, sent = 0, lost = 0;
  };
  std::vector<Sender> senders = {};
  Instant now = second;
  double queue = 0, used = 0, overflowed = 0, offered = 0;  // bytes

  void pass(Duration time) {
    used = overflowed = offered = 0;
    for (const auto until = now + time; now < until; now += millisecond) step();
  }
  void step() {
    const auto seconds = double(millisecond) / double(second), line = bytes_per_second * seconds;
    const auto of = [&](const Sender& s) { return s.may > 0 ? std::min(s.may * seconds, line) : line; };
    double in = 0;
    for (const auto& s : senders) in += of(s);
    const auto out = std::min(line, in + queue);
    const auto most = bytes_per_second * double(queue_most) / double(second);
    const auto over = std::max(queue + in - out - most, 0.0);
    queue += in - out - over;
    used += out, overflowed += over, offered += in;
    for (auto& s : senders) {
      const auto share = of(s) / in;
      s.sent += of(s), s.delivered += share * out;
      s.lost += share * over + chance * of(s);
      look(s);
    }
  }
  void look(Sender& s) {
    if (!s.pace.due(now)) return;
    s.seen.delivered = std::uint64_t(s.delivered);
    s.seen.segments = std::uint64_t(s.sent / 1448);
    s.seen.segments_again = std::uint64_t(s.lost / 1448);
    s.seen.rtt_least = rtt;
    s.seen.rtt = rtt + Duration(queue / bytes_per_second * double(second));
    if (const auto bound = s.pace.look(now, s.seen)) s.may = double(*bound);
  }
};
}  // namespace

// As many streams as a link has while nothing is known of its line: each could send far more at once.
TEST(a_slow_line_is_not_overrun) {
  for (const Duration rtt : {5 * millisecond, 80 * millisecond})
    for (const auto links : {1u, 3u}) {
      Shared line{2.5e6, rtt, 50 * millisecond};
      line.senders.resize(links);
      for (auto& s : line.senders) s.seen.at_least = (16 / links) * 64 << 10;
      line.pass(10 * second);
      line.pass(50 * second);
      CHECK(line.overflowed < 0.01 * line.offered);
      CHECK(line.used > 0.97 * 2.5e6 * 50);
    }
}

// Neither given way to, nor taken for leave to lose as much as one likes.
TEST(chance_losses_beside_a_short_queue) {
  for (const auto links : {1u, 3u}) {
    Shared line{31.25e6, 80 * millisecond, 20 * millisecond, 0.03};
    line.senders.resize(links);
    line.pass(10 * second);
    line.pass(50 * second);
    CHECK(line.overflowed < 0.06 * line.offered);
    CHECK(line.used > 0.9 * 31.25e6 * 50);
  }
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
