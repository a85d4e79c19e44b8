// How fast all stripes of a long path may send together. Each estimates the path for itself, as if it had it
// alone, and after a pause all of them begin at once: that fills queues and overflows them. Where it does,
// the sum is bounded by what has arrived, and grows while no queue does. Pure; owned by the I/O thread.
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
  struct Seen {                   // of all stripes together
    std::uint64_t delivered = 0;  // bytes, since they were opened
    std::uint64_t segments = 0, segments_again = 0;
    Duration rtt_least = 0, rtt = 0;  // without queues, and now
    std::uint64_t at_least = 0;       // bytes per second below which they cannot be bounded
  };

  // There is nothing to send: what is measured across such a moment says no more than how fast it is at
  // least.
  void idle() { idle_ = true; }
  bool due(Instant now) const { return now >= look_at_; }

  // The bound in bytes per second, where it has changed.
  std::optional<std::uint64_t> look(Instant now, const Seen& seen) {
    const auto seconds = double(now - since_) / double(second);
    const bool known = since_ != 0 && seen.delivered >= before_.delivered &&
                       seen.segments >= before_.segments && seen.segments_again >= before_.segments_again;
    const bool idle = std::exchange(idle_, false), settling = std::exchange(settling_, false);
    const auto rate = known && seconds > 0 ? double(seen.delivered - before_.delivered) / seconds : 0;
    const auto sent = std::max<std::uint64_t>(known ? seen.segments - before_.segments : 0, 1);
    const auto lost = known ? double(seen.segments_again - before_.segments_again) / double(sent) : 0;
    since_ = now;
    before_ = seen;
    // The first bytes after a pause take a round trip to arrive.
    settling_ = !known || idle;
    look_at_ = now + std::clamp<Duration>(seen.rtt_least + (settling_ ? seen.rtt_least / 4 : 0),
                                          20 * millisecond, second);
    if (idle || settling || !known) {
      if (rate > best()) remember(rate);
      return std::nullopt;
    }
    remember(rate);
    return adapt(rate, lost, seen);
  }

 private:
  static constexpr double overflow = 0.02;  // of segments sent again: queues, not chance
  static constexpr Duration queue_least = 10 * millisecond;
  static constexpr double step = 1.08, back = 0.97;
  // After so many steps in a row it is far from what the path can take, as after an outage.
  static constexpr int small_steps = 4;
  static constexpr double large_step = 1.3;
  // What is still lost when it has been slowed down so often is not lost for its speed. More than that is.
  static constexpr int slowed_in_vain = 4;
  static constexpr double no_bound = 0;

  double best() const { return *std::max_element(rates_.begin(), rates_.end()); }
  void remember(double rate) { rates_[next_++ % rates_.size()] = rate; }

  // What is held back shows a round trip later: until then nothing is done about it again.
  std::optional<std::uint64_t> adapt(double rate, double lost, const Seen& seen) {
    const auto before = bound_;
    const auto queue = seen.rtt - seen.rtt_least;
    if (std::exchange(waits_, false)) return std::nullopt;
    const bool queued = queue > std::max(queue_least, seen.rtt_least / 2);
    if (queued || (too_much(lost, queued) && !in_vain()))
      slow_down(seen);
    else if (bound_ != no_bound && rate > 0.8 * bound_)
      bound_ *= ++steps_ > small_steps ? large_step : step;
    if (bound_ == before) return std::nullopt;
    return std::uint64_t(bound_);
  }

  // More than what chance takes on this path; where a queue stands, that tells enough.
  bool too_much(double lost, bool queued) {
    if (lost < chance_) chance_ += (lost - chance_) / 4;
    const bool loses = !queued && lost > overflow + chance_;
    if (!loses) slowed_ = 0;
    least_lost_ = slowed_ == 0 ? lost : std::min(least_lost_, lost);
    return loses;
  }

  bool in_vain() {
    if (slowed_ < slowed_in_vain) return false;
    chance_ = least_lost_;
    slowed_ = 0;
    return true;
  }

  // Not to nothing: it would not come back from there.
  void slow_down(const Seen& seen) {
    bound_ = std::max({back * best(), double(seen.at_least), 1.0});
    waits_ = true;
    steps_ = 0;
    ++slowed_;
  }

  bool idle_ = false, settling_ = false, waits_ = false;
  Instant since_ = 0, look_at_ = 0;
  Seen before_;
  std::array<double, 8> rates_{};  // of the last windows
  std::size_t next_ = 0;
  double bound_ = no_bound;
  int steps_ = 0;                       // up, since it was slowed down
  int slowed_ = 0;                      // times in a row, for losses where no queue stood
  double least_lost_ = 0, chance_ = 0;  // in these times, and at any speed: of segments
};

}  // namespace pccl
