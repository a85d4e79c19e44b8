// One direction between two peers: speed, queue, loss, delay, jitter, cuts, and what came of the packets.
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>

#include "line.hpp"
#include "random.hpp"

namespace wan {

struct LinkCounters {
  std::uint64_t packets = 0, bytes = 0;  // handed to the receiver
  std::uint64_t lost = 0;                // by chance
  std::uint64_t dropped = 0;             // by a full queue, the link's or an access line's
  std::uint64_t cut = 0;                 // by a cut, on their way included
};

class Link {
 public:
  explicit Link(std::uint64_t seed) : random_(seed) {}

  Line line;
  double delay_ms = 0;
  double jitter_ms = 0;  // up to so much more, evenly
  double loss = 0;       // share of packets, each by itself
  bool reorder = false;  // jitter may let a packet overtake; else it waits for the one before
  LinkCounters counters;

  // When a packet that comes at `now` reaches the other side; nothing if it does not.
  std::optional<Nanoseconds> carry(Nanoseconds now, std::size_t bytes) {
    const std::optional<Nanoseconds> sent = line.pass(now, bytes);
    if (!sent) {
      ++counters.dropped;
      return std::nullopt;
    }
    if (loss > 0 && random_.below_one() < loss) {  // it has used the line all the same
      ++counters.lost;
      return std::nullopt;
    }
    const double extra = jitter_ms > 0 ? jitter_ms * random_.below_one() : 0;
    Nanoseconds arrives = *sent + static_cast<Nanoseconds>((delay_ms + extra) * millisecond);
    if (!reorder) arrives = std::max(arrives, last_arrival_);
    last_arrival_ = std::max(arrives, last_arrival_);
    return arrives;
  }

  bool is_cut() const { return cut_; }
  void set_cut(bool cut) {
    cut_ = cut;
    if (cut) lose_what_is_on_its_way();
  }

  // A packet remembers the period in which it set out; it arrives only in the same.
  std::uint32_t period() const { return period_; }
  void lose_what_is_on_its_way() { ++period_; }

 private:
  Random random_;
  Nanoseconds last_arrival_ = 0;
  std::uint32_t period_ = 0;
  bool cut_ = false;
};

}  // namespace wan
