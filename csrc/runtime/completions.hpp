// Operations that have ended, by the numbers their owner gave them: one thread waits here for many
// operations.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

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
  // All that have ended since; empty when the time is over first.
  std::vector<std::uint64_t> take(Duration time) {
    std::unique_lock lock(mutex_);
    pushed_.wait_for(lock, std::chrono::nanoseconds(time), [&] { return !ended_.empty(); });
    return std::exchange(ended_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable pushed_;
  std::vector<std::uint64_t> ended_;
};

}  // namespace pccl
