// Waiting a moment without sleeping: what answers within microseconds costs less to wait for than falling
// asleep and waking up. It yields, so that whoever has work for this core goes first. Any thread.
#pragma once
#include <sched.h>
#include <unistd.h>

#include "base/clock.hpp"

namespace pccl {

class Spin {
 public:
  // Longer than a round trip on this host, so short that nobody sees it in the CPU time of an idle process.
  static constexpr Duration longest = 50 * microsecond;

  explicit Spin(Duration most = longest) : until_(alone() ? 0 : monotonic_now() + most) {}
  bool again() const {  // false: time to sleep
    if (monotonic_now() >= until_) return false;
    sched_yield();
    return true;
  }

 private:
  static bool alone() {  // whoever would answer needs this core
    static const bool one_core = sysconf(_SC_NPROCESSORS_ONLN) < 2;
    return one_core;
  }
  Instant until_;
};

}  // namespace pccl
