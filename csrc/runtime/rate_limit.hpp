// How many bytes an operation that must leave room for others may send by now: a bucket that fills with time.
// Pure; owned by the I/O thread.
#pragma once
#include <algorithm>
#include <cstdint>

#include "base/clock.hpp"

namespace pccl {

class RateLimit {
 public:
  static constexpr Duration step = 4 * millisecond;

  RateLimit(std::uint64_t bytes_per_second, Instant now) : rate_(bytes_per_second), at_(now) {}

  bool due(Instant now) const { return now - at_ >= step; }
  Instant next() const { return at_ + step; }

  // What has been earned since the last time. A long pause earns no burst.
  std::int64_t earn(Instant now) {
    const auto time = std::min<Duration>(now - at_, longest);
    at_ = now;
    const auto exact = double(rate_) * double(time) / double(second) + rest_;
    const auto whole = std::int64_t(std::min(exact, 1e15));
    rest_ = std::min(exact - double(whole), 1.0);
    return whole;
  }
  // Unspent, no more than this is kept.
  std::int64_t most() const { return std::int64_t(double(rate_) * double(longest) / double(second)) + 1; }

 private:
  static constexpr Duration longest = 20 * millisecond;
  std::uint64_t rate_;
  Instant at_;
  double rest_ = 0;
};

}  // namespace pccl
