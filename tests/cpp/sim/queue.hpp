// Simulated time: one queue of events, ordered by instant and then by the order in which they were put in.
#pragma once
#include <algorithm>
#include <cstddef>
#include <new>
#include <type_traits>
#include <vector>

#include "base/clock.hpp"

namespace pccl::sim {

// A callable of a few words, kept in place: millions of them are made per second.
class Action {
 public:
  Action() = default;
  template <class F>
    requires(!std::is_same_v<std::decay_t<F>, Action>)
  Action(F f) {
    static_assert(std::is_trivially_copyable_v<F> && sizeof(F) <= sizeof(space_));
    new (space_) F(f);
    call_ = [](void* space) { (*static_cast<F*>(space))(); };
  }
  void operator()() { call_(space_); }

 private:
  alignas(8) std::byte space_[112];
  void (*call_)(void*) = nullptr;
};

class Queue {
 public:
  Instant now() const { return now_; }
  std::uint64_t handled() const { return handled_; }
  bool empty() const { return heap_.empty(); }
  Instant next() const { return heap_.front().at; }  // of the earliest event; the queue is not empty
  void advance(Instant to) { now_ = std::max(now_, to); }

  void at(Instant when, const Action& action) {
    auto slot = std::uint32_t(actions_.size());
    if (free_.empty()) {
      actions_.push_back(action);
    } else {
      slot = free_.back();
      free_.pop_back();
      actions_[slot] = action;
    }
    heap_.push_back({std::max(when, now_), next_++, slot});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }
  void after(Duration delay, const Action& action) { at(now_ + delay, action); }

  // Handles the earliest event; the queue is not empty.
  void step() {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const auto entry = heap_.back();
    heap_.pop_back();
    now_ = entry.at;
    ++handled_;
    auto action = actions_[entry.slot];
    free_.push_back(entry.slot);
    action();
  }

 private:
  struct Entry {
    Instant at;
    std::uint64_t order;
    std::uint32_t slot;
  };
  static bool later(const Entry& a, const Entry& b) { return a.at != b.at ? a.at > b.at : a.order > b.order; }

  Instant now_ = 0;
  std::uint64_t next_ = 0, handled_ = 0;
  std::vector<Entry> heap_;
  std::vector<Action> actions_;
  std::vector<std::uint32_t> free_;
};

}  // namespace pccl::sim
