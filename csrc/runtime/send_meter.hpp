// How fast a link carries data while its sender waits for nothing but the link: from one moment at which
// none of its stripes takes more to the next, by what the other side has confirmed. Pure.
#pragma once
#include <cstdint>

#include "base/clock.hpp"

namespace pccl {

class SendMeter {
 public:
  struct Reading {
    std::uint64_t bytes = 0;
    Duration time = 0;
  };

  // Is it worth asking the kernel again?
  bool due(Instant now) const { return full_at_ == never || now - full_at_ >= window_min; }
  // The link takes no more. `confirmed`: bytes in all, by the other side; fewer than before where a stripe
  // broke.
  void full(Instant now, std::uint64_t confirmed) {
    refilled(now);
    const auto window = now - full_at_;
    if (full_at_ != never && window <= window_max && idle_ * 8 <= window && confirmed >= confirmed_) {
      reading_.bytes += confirmed - confirmed_;
      reading_.time += window;
    }
    full_at_ = now;
    confirmed_ = confirmed;
    idle_ = 0;
  }
  // The sender has nothing more to send, and has something again.
  void ran_dry(Instant now) {
    if (running() && dry_since_ == never) dry_since_ = now;
  }
  void refilled(Instant now) {
    if (dry_since_ == never) return;
    idle_ += now - dry_since_;
    dry_since_ = never;
    if (idle_ > idle_max) full_at_ = never;  // small operations pay for no clock
  }
  bool running() const { return full_at_ != never; }
  bool dry() const { return dry_since_ != never; }

  const Reading& reading() const { return reading_; }
  void forget() { reading_ = {}; }

 private:
  static constexpr Duration window_min = 5 * millisecond, window_max = 2 * second;
  static constexpr Duration idle_max = 50 * millisecond;

  Reading reading_;
  Instant full_at_ = never, dry_since_ = never;
  std::uint64_t confirmed_ = 0;
  Duration idle_ = 0;
};

}  // namespace pccl
