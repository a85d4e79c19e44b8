// Operations that have ended, by the numbers their owner gave them: few threads wait here for many
// operations.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

#include "base/clock.hpp"

namespace pccl {

class Completions {
 public:
  void push(std::uint64_t number) {
    {
      const std::lock_guard lock(mutex_);
      ended_.push_back(number);
    }
    pushed_.notify_one();
  }
  // The one that ended first; nothing when the time is over before. One at a time: whoever takes it may be
  // busy with it until others have been taken.
  std::optional<std::uint64_t> take(Duration time) {
    std::unique_lock lock(mutex_);
    if (!pushed_.wait_for(lock, std::chrono::nanoseconds(time), [&] { return !ended_.empty(); })) return {};
    const std::uint64_t first = ended_.front();
    ended_.pop_front();
    return first;
  }

 private:
  std::mutex mutex_;
  std::condition_variable pushed_;
  std::deque<std::uint64_t> ended_;
};

}  // namespace pccl
