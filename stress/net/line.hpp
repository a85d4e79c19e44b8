// A line of limited speed with a queue before it: a link between two peers, or the access line of one.
// Times are nanoseconds of the monotonic clock throughout. Owned and touched by the one thread there is.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace wan {

using Nanoseconds = std::int64_t;
inline constexpr Nanoseconds microsecond = 1'000;
inline constexpr Nanoseconds millisecond = 1'000'000;

class Line {
 public:
  double rate_mbit = 0;  // of IP bytes; 0: no limit
  double queue_ms = 50;  // how much waits at most, as time on the line; what comes then is dropped

  // When the last bit of a packet that comes at `now` has left; nothing: the queue is full.
  std::optional<Nanoseconds> pass(Nanoseconds now, std::size_t bytes) {
    if (rate_mbit <= 0) return now;
    const Nanoseconds begins = std::max(now, free_at_);
    if (static_cast<double>(begins - now) > queue_ms * millisecond) return std::nullopt;
    const double bits = 8.0 * static_cast<double>(bytes);
    free_at_ = begins + static_cast<Nanoseconds>(bits * 1e3 / rate_mbit);
    return free_at_;
  }

 private:
  Nanoseconds free_at_ = 0;
};

}  // namespace wan
