// Chunk-sized buffers between the network and the reduction. The last one freed is the next one used: it is
// still in the cache. A slot may also stand for bytes that lie in another process's mapped memory, until
// something is written to it. Owned by the I/O thread; a slot belongs to one attempt of one operation.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "collective/executor.hpp"

namespace pccl {

class SlotPool {
 public:
  // Kept for the next operation; more are given back to the system when they come free.
  static constexpr std::size_t kept_bytes_max = 16u << 20;

  SlotId take(std::uint64_t attempt, std::size_t bytes) {
    if (free_.empty()) {
      free_.push_back(SlotId(slots_.size()));
      slots_.emplace_back();
    }
    const auto id = free_.back();
    free_.pop_back();
    auto& slot = slots_[id];
    kept_bytes_ -= slot.capacity;
    grow(slot, bytes);
    slot.attempt = attempt;
    ++used_;
    return id;
  }
  // Bytes of somebody else, who is told when they are not read any more.
  struct Borrowed {
    const std::uint8_t* data = nullptr;
    std::shared_ptr<const void> keep;  // what makes `data` readable
    std::uint64_t peer = 0, number = 0;
  };
  SlotId borrow(std::uint64_t attempt, Borrowed bytes) {
    const auto id = take(attempt, 0);
    slots_[id].borrowed = std::move(bytes);
    return id;
  }
  void give(SlotId id) {
    auto& slot = slots_[id];
    if (slot.attempt == 0) return;
    slot.attempt = 0;
    --used_;
    give_back(slot);
    if (kept_bytes_ + slot.capacity > kept_bytes_max) slot.memory.reset(), slot.capacity = 0;
    kept_bytes_ += slot.capacity;
    free_.push_back(id);
  }
  void give_all(std::uint64_t attempt) {
    for (SlotId id = 0; id < slots_.size(); ++id)
      if (slots_[id].attempt == attempt) give(id);
  }
  std::uint8_t* data(SlotId id) { return slots_[id].memory.get(); }
  const std::uint8_t* read(SlotId id) const {
    const auto& slot = slots_[id];
    return slot.borrowed.data != nullptr ? slot.borrowed.data : slot.memory.get();
  }
  // For writing so many bytes: of a borrowed one, own memory instead. What read() gave can still be read
  // until the caller returns to whoever calls take_given_back().
  std::uint8_t* write(SlotId id, std::size_t bytes) {
    auto& slot = slots_[id];
    give_back(slot);
    grow(slot, bytes);
    return slot.memory.get();
  }
  std::vector<Borrowed> take_given_back() { return std::exchange(given_back_, {}); }
  bool owes() const { return !given_back_.empty(); }
  std::size_t used() const { return used_; }

 private:
  struct Free {
    void operator()(std::uint8_t* p) const { std::free(p); }
  };
  struct Slot {
    std::unique_ptr<std::uint8_t, Free> memory;
    std::size_t capacity = 0;
    std::uint64_t attempt = 0;
    Borrowed borrowed;
  };
  static void grow(Slot& slot, std::size_t bytes) {
    if (slot.capacity >= bytes) return;
    slot.memory.reset(static_cast<std::uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
    if (slot.memory == nullptr) throw std::bad_alloc();
    slot.capacity = bytes;
  }
  void give_back(Slot& slot) {
    if (slot.borrowed.data != nullptr) given_back_.push_back(std::exchange(slot.borrowed, {}));
  }
  std::vector<Slot> slots_;
  std::vector<SlotId> free_;
  std::vector<Borrowed> given_back_;
  std::size_t used_ = 0;
  std::size_t kept_bytes_ = 0;  // of those that are free
};

}  // namespace pccl
