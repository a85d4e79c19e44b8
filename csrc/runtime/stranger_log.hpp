// Lines about connections that ended without an introduction: the first at once, then at most one per second,
// with their number. Whoever scans a port must not fill the log. Owned by the master's I/O thread.
#pragma once
#include <functional>
#include <string>

#include "base/clock.hpp"

namespace pccl {

class StrangerLog {
 public:
  explicit StrangerLog(std::function<void(const std::string&)> log) : log_(std::move(log)) {}

  void gone(const std::string& remote, const std::string& why, Instant now) {
    ++unsaid_;
    last_ = remote + " went away: " + why;
    tick(now);
  }
  void tick(Instant now) {
    if (unsaid_ == 0 || now < quiet_until_) return;
    if (log_)
      log_(unsaid_ == 1 ? "a stranger at " + last_
                        : std::to_string(unsaid_) + " strangers came and went; the last one at " + last_);
    unsaid_ = 0;
    quiet_until_ = now + second;
  }
  Instant next_deadline() const { return unsaid_ == 0 ? never : quiet_until_; }

 private:
  std::function<void(const std::string&)> log_;
  std::uint64_t unsaid_ = 0;
  std::string last_;
  Instant quiet_until_ = 0;
};

}  // namespace pccl
