// Simulated time: one queue of events, ordered by instant and then by the order in which they were put in.
#pragma once
#include <algorithm>
#include <functional>
#include <vector>

#include "base/clock.hpp"

namespace pccl::sim {

class Queue {
 public:
  using Action = std::function<void()>;

  Instant now() const { return now_; }
  std::uint64_t handled() const { return handled_; }
  bool empty() const { return heap_.empty(); }
  Instant next_at() const { return heap_.empty() ? never : heap_.front().at; }

  void at(Instant when, Action action) {
    std::uint32_t slot = std::uint32_t(actions_.size());
    if (free_.empty()) {
      actions_.push_back(std::move(action));
    } else {
      slot = free_.back();
      free_.pop_back();
      actions_[slot] = std::move(action);
    }
    heap_.push_back({std::max(when, now_), next_++, slot});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }
  void after(Duration delay, Action action) { at(now_ + delay, std::move(action)); }

  // Handles the earliest event; the queue is not empty.
  void step() {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const auto entry = heap_.back();
    heap_.pop_back();
    now_ = entry.at;
    ++handled_;
    auto action = std::move(actions_[entry.slot]);
    actions_[entry.slot] = nullptr;
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
