#include "staging/monitor.hpp"

#include <unistd.h>

#include <atomic>

namespace pccl::staging {

Monitor::Monitor() : process_(getpid()) {}

bool Monitor::ours() const { return process_ == getpid(); }

Monitor& Monitor::here() {
  static std::atomic<Monitor*> current{new Monitor};  // never destroyed: copy threads outlive everything
  auto* found = current.load();
  if (found->ours()) return *found;
  auto* const own = new Monitor;
  if (current.compare_exchange_strong(found, own)) return *own;
  delete own;
  return *found;
}

bool Monitor::wait(std::condition_variable& condition, Lock& lock, Instant until) {
  if (until == never) {
    condition.wait(lock);
    return true;
  }
  const std::chrono::steady_clock::time_point limit{std::chrono::nanoseconds(until)};
  condition.wait_until(lock, limit);
  return monotonic_now() < until;
}

}  // namespace pccl::staging
