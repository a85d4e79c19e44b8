#pragma once
// The threads that copy for all captures of this process, the oldest capture first. They yield to everybody
// else (a low priority, as batch work), because training goes on beside them; who cannot wait copies along.

#include <memory>
#include <vector>

#include "base/result.hpp"
#include "staging/monitor.hpp"

namespace pccl::staging {

// Something to copy. Called under the monitor's lock.
class Copying {
 public:
  enum class Who : std::uint8_t { thread, caller };

  virtual ~Copying() = default;
  // Does one job, without the lock meanwhile. False: there is none now, and the lock was kept.
  virtual bool work(Lock& lock, Who who) = 0;
  virtual bool is_over() const = 0;  // there will never be one again
  // Ends it; without the lock.
  virtual void stop() = 0;
};

class CopyThreads {
 public:
  // Of this process; its threads sleep for ever where there is nothing to do.
  static CopyThreads& here();
  explicit CopyThreads(Monitor& monitor) : monitor_(monitor) {}

  Monitor& monitor() { return monitor_; }

  // Ends all captures: memory that they read is about to go, because the process ends.
  void stop_all();

  // --- Under the monitor's lock.
  // At least so many threads from now on. An error: there is not a single one.
  Error want(unsigned threads);
  void add(std::shared_ptr<Copying> copying);
  bool work(Lock& lock, Copying::Who who);  // one job of the oldest that has one

 private:
  [[noreturn]] void run();

  Monitor& monitor_;
  std::vector<std::shared_ptr<Copying>> all_;  // by age
  unsigned threads_ = 0;
};

}  // namespace pccl::staging
