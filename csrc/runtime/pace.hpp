// How fast all stripes of a long path may send together. Each estimates the path for itself, as if it had it
// alone, and after a pause all of them begin at once: that overflows queues. Where it did, the sum is bounded
// by what has arrived at best, and grows slowly while nothing is lost. Pure; owned by the I/O thread.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/clock.hpp"

namespace pccl {

class Pace {
 public:
  struct Seen {               // of all stripes together, since they were opened
    std::uint64_t acked = 0;  // bytes
    std::uint64_t segments = 0, segments_again = 0;
  };

  // There is nothing to send: what is measured across such a moment says nothing about the path.
  void idle() { busy_ = false; }
  bool due(Instant now) const { return !busy_ || now >= look_at_; }

  // The bound in bytes per second, where it has changed: after a window in which there was always something
  // to send.
  std::optional<std::uint64_t> look(Instant now, const Seen& seen, Duration rtt) {
    const bool again = busy_ && seen.acked >= before_.acked && seen.segments >= before_.segments;
    if (!again) {  // the first bytes take a round trip to arrive
      busy_ = settling_ = true;
      begin(now, now + rtt + rtt / 4, seen);
      return std::nullopt;
    }
    const auto seconds = double(now - since_) / double(second);
    const auto rate = double(seen.acked - before_.acked) / seconds;
    const auto segments = std::max<std::uint64_t>(seen.segments - before_.segments, 1);
    const auto lost = double(seen.segments_again - before_.segments_again) / double(segments);
    begin(now, now + std::clamp<Duration>(2 * rtt, 20 * millisecond, second), seen);
    if (!std::exchange(settling_, false)) best_[next_++ % best_.size()] = rate;
    return next_ == 0 ? std::nullopt : adapt(rate, lost);
  }

 private:
  static constexpr double overflow = 0.02;  // of segments sent again: queues, not chance
  static constexpr double step = 1.1;
  static constexpr double no_bound = 0;

  std::optional<std::uint64_t> adapt(double rate, double lost) {
    const auto before = bound_;
    const auto best = *std::max_element(best_.begin(), best_.end());
    if (lost > overflow)
      bound_ = best;
    else if (bound_ != no_bound && rate > 0.8 * bound_)
      bound_ *= step;
    if (bound_ == before) return std::nullopt;
    return std::uint64_t(bound_);
  }
  void begin(Instant now, Instant until, const Seen& seen) {
    since_ = now;
    look_at_ = until;
    before_ = seen;
  }

  bool busy_ = false, settling_ = false;
  Instant since_ = 0, look_at_ = 0;
  Seen before_;
  std::array<double, 8> best_{};  // rates of the last windows
  std::size_t next_ = 0;
  double bound_ = no_bound;
};

}  // namespace pccl
