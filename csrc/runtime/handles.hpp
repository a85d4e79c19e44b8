// What a user's thread holds while the I/O thread works: it waits here, and nothing of the I/O thread is
// shared but this.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>

#include "base/spin.hpp"
#include "protocol/effects.hpp"
#include "runtime/operation_memory.hpp"

namespace pccl {

struct OperationResult {
  Outcome outcome;
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  Duration took = 0;
  double weight = 0;       // of all contributors, where the operation was weighted
  Duration to_result = 0;  // of the last attempt: until this peer held the whole result, before the commit
  std::vector<PeerId> skipped{};  // members whose values were not finite; no contributors
  bool fed_back = false;          // the residuals that came out belong to this result
};

// One value that comes once. Any thread may wait; the I/O thread sets.
template <class T> class Promise {
 public:
  void set(T value) {
    std::function<void()> then;
    {
      const std::lock_guard lock(mutex_);
      if (value_) return;
      value_ = std::move(value);
      there_.store(true, std::memory_order_release);
      then = std::exchange(then_, {});
    }
    set_.notify_all();
    if (then) then();
  }
  // Runs once it is there: at once, or on the I/O thread, which must not wait in it. One at a time.
  void then(std::function<void()> call) {
    {
      const std::lock_guard lock(mutex_);
      if (!value_) {
        then_ = std::move(call);
        return;
      }
    }
    call();
  }
  bool wait_for(Duration time) const {
    const Spin spin(std::min(time, Spin::longest));
    while (!there_.load(std::memory_order_acquire) && spin.again()) {
    }
    std::unique_lock lock(mutex_);
    return set_.wait_for(lock, std::chrono::nanoseconds(time), [&] { return value_.has_value(); });
  }
  bool done() const {
    const std::lock_guard lock(mutex_);
    return value_.has_value();
  }
  T get() const {  // after done()
    const std::lock_guard lock(mutex_);
    return *value_;
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable set_;
  std::optional<T> value_;
  std::function<void()> then_;
  std::atomic<bool> there_{false};
};

struct OperationHandle {
  Promise<OperationResult> result;
  OpKey key;            // I/O thread only
  bool posted = false;  // I/O thread only
};

struct BoundaryResult {
  Error error;
  bool changed = false;                // other members than before
  std::vector<RingReport> rings = {};  // where links were measured
};

// What a shared-state synchronization tells the thread that drives it.
struct StateEvent {
  enum class Kind : std::uint8_t { start, elected, block, failed, done };
  explicit StateEvent(Kind what) : kind(what) {}
  Kind kind;
  std::uint32_t attempt = 0;
  ViewId view;             // of the attempt that starts
  PeerId donor = no_peer;  // of a block that failed
  StatePlan plan;
  std::uint32_t entry = 0;
  bool hashes = false;
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
  std::string text;
  OperationResult result;
};

class StateEvents {
 public:
  void push(StateEvent event) {
    {
      const std::lock_guard lock(mutex_);
      if (event.kind == StateEvent::Kind::start) events_.clear();  // a new attempt: older news is void
      events_.push_back(std::move(event));
    }
    pushed_.notify_all();
  }
  std::optional<StateEvent> pop(Duration time) {
    std::unique_lock lock(mutex_);
    if (!pushed_.wait_for(lock, std::chrono::nanoseconds(time), [&] { return !events_.empty(); }))
      return std::nullopt;
    auto event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable pushed_;
  std::deque<StateEvent> events_;
};

struct ServedEntry {
  const std::uint8_t* data = nullptr;
  std::uint64_t bytes = 0;
  const std::uint8_t* hashes = nullptr;
  std::uint64_t hash_bytes = 0;
};

struct StateHandle {
  StateEvents events;
  // User thread only. What it asks for belongs to the attempt that it was told of, which may be over by then.
  ViewId told;
  bool done = false;
  OpKey key;  // I/O thread only, as all below
  bool posted = false;
  ViewId view;  // of the attempt that runs
  std::vector<ServedEntry> served;
  Instant started = 0;
  std::uint64_t sent = 0, received = 0;
};

}  // namespace pccl
