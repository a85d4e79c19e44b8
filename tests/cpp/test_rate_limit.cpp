// What an operation with a rate limit may have sent by when.
#include "check.hpp"
#include "runtime/rate_limit.hpp"

namespace pccl {
namespace {

TEST(as_many_bytes_as_time_has_passed) {
  for (const std::uint64_t rate : {1ull, 999ull, 3'000'000ull, 40'000'000'000ull}) {
    RateLimit limit(rate, 0);
    std::int64_t earned = 0;
    Instant now = 0;
    while (now < 10 * second) {
      now += 7 * millisecond;
      CHECK(limit.due(now));
      earned += limit.earn(now);
    }
    const auto exact = double(rate) * double(now) / double(second);
    CHECK(double(earned) <= exact + 1 && double(earned) >= exact * 0.999 - 2);
  }
}

TEST(a_pause_earns_no_burst) {
  RateLimit limit(1'000'000, 0);
  CHECK(!limit.due(RateLimit::step - 1));
  CHECK_EQ(limit.next(), RateLimit::step);
  CHECK(limit.earn(3600 * second) <= limit.most());
  CHECK(limit.most() <= 20'001);
}

}  // namespace
}  // namespace pccl
