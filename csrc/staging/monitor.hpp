#pragma once
// The one lock of staging in this process, and what is waited for under it. One lock for pools, captures and
// copy threads: it is taken once per block copied (some 100 us), and no order of locks can go wrong. Whoever
// changes what others may wait for notifies before unlocking.

#include <sys/types.h>

#include <condition_variable>
#include <mutex>

#include "base/clock.hpp"

namespace pccl::staging {

using Lock = std::unique_lock<std::mutex>;

struct Monitor {
  // Of this process: a forked child has neither the threads nor, perhaps, a lock that can be taken.
  static Monitor& here();

  Monitor();
  bool ours() const;  // false in a forked child: nothing of it may be touched there

  void notify() {
    work.notify_all();
    news.notify_all();
  }
  // False: the time is over.
  static bool wait(std::condition_variable& condition, Lock& lock, Instant until);

  std::mutex mutex;
  std::condition_variable work;  // copy threads: there may be something to copy
  std::condition_variable news;  // callers: blocks are copied, slabs are free, a capture has ended

 private:
  const pid_t process_;
};

}  // namespace pccl::staging
