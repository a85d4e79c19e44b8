// How fast a link is: from moments when it takes no more, and from what a probe's other end
// confirms.
#include "check.hpp"
#include "runtime/probe_rate.hpp"
#include "runtime/send_meter.hpp"

namespace pccl {

TEST(from_full_to_full_the_link_is_what_is_measured) {
  SendMeter meter;
  CHECK(!meter.running());
  meter.full(0, 1000);
  CHECK(!meter.due(millisecond));
  CHECK(meter.due(10 * millisecond));
  meter.full(10 * millisecond, 2000);
  meter.full(20 * millisecond, 3000);
  CHECK_EQ(meter.reading().bytes, 2000u);
  CHECK_EQ(meter.reading().time, 20 * millisecond);
  meter.forget();
  CHECK_EQ(meter.reading().time, 0);
}

TEST(what_a_sender_without_data_sends_says_nothing) {
  SendMeter meter;
  meter.full(0, 0);
  meter.ran_dry(2 * millisecond);
  meter.refilled(5 * millisecond);
  meter.full(10 * millisecond, 5000);  // it waited for a third of the time
  CHECK_EQ(meter.reading().time, 0);
  meter.ran_dry(12 * millisecond);
  meter.refilled(13 * millisecond);
  meter.full(20 * millisecond, 9000);  // a tenth is a hiccup
  CHECK_EQ(meter.reading().bytes, 4000u);
  CHECK_EQ(meter.reading().time, 10 * millisecond);
}

TEST(between_operations_no_clock_is_read) {
  SendMeter meter;
  meter.full(0, 0);
  meter.ran_dry(millisecond);
  CHECK(meter.dry());
  meter.refilled(second);
  CHECK(!meter.running());
  meter.ran_dry(2 * second);
  CHECK(!meter.dry());
  meter.full(3 * second, 100);
  CHECK_EQ(meter.reading().time, 0);
}

TEST(a_stripe_that_broke_took_its_count_with_it) {
  SendMeter meter;
  meter.full(0, 10'000);
  meter.full(10 * millisecond, 4'000);
  CHECK_EQ(meter.reading().time, 0);
  meter.full(20 * millisecond, 5'000);
  CHECK_EQ(meter.reading().bytes, 1'000u);
}

TEST(a_stream_that_stood_still_says_nothing) {
  SendMeter meter;
  meter.full(0, 0);
  meter.full(10 * second, 1000);
  CHECK_EQ(meter.reading().time, 0);
}

namespace {

// A stream that doubles with every round trip up to its speed; what a probe makes of it, and how long it
// takes.
struct Probed {
  std::uint64_t bandwidth = 0;
  Duration took = 0;
};

Probed probe(std::uint64_t bandwidth, Duration rtt, Duration time) {
  ProbeRate rate;
  rate.begin(time, rtt, 0);
  double confirmed = 0, window = 14'480;
  rate.add(0, 0);
  for (Instant now = 5 * millisecond;; now += 5 * millisecond) {
    const auto growing = window / double(std::max<Duration>(rtt, microsecond)) * double(second);
    confirmed += std::min(double(bandwidth), growing) * 0.005;
    window *= rtt < 5 * millisecond ? 1e6 : 1 + 5.0 * double(millisecond) / double(rtt);
    rate.add(now, std::uint64_t(confirmed));
    if (rate.over(now)) return {rate.best(), now};
  }
}

}  // namespace

TEST(a_probe_comes_close_to_the_speed) {
  for (const std::uint64_t bandwidth : {1'000'000u, 30'000'000u, 1'000'000'000u})
    for (const Duration rtt : {50 * microsecond, 10 * millisecond, 80 * millisecond}) {
      const auto found = probe(bandwidth, rtt, 200 * millisecond);
      const auto share = double(found.bandwidth) / double(bandwidth);
      const bool reachable = rtt < 50 * millisecond || bandwidth < 100'000'000;
      CHECK(share <= 1.01);
      CHECK(!reachable || share > 0.85);
      CHECK(found.took <= 3 * second);
      CHECK(rtt > millisecond || found.took <= 300 * millisecond);
    }
}

TEST(a_probe_without_an_answer_ends) {
  ProbeRate rate;
  rate.begin(200 * millisecond, 0, 0);
  Instant now = 0;
  while (!rate.over(now)) rate.add(now += 5 * millisecond, 7);
  CHECK(now <= 300 * millisecond);
  CHECK_EQ(rate.best(), 0u);
}

}  // namespace pccl
