// Chunk-sized buffers between the network and the reduction. The last one freed is the next one used: it is
// still in the cache. Owned by the I/O thread; a slot belongs to one attempt of one operation.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "collective/executor.hpp"

namespace pccl {

class SlotPool {
 public:
  // Kept for the next operation; more are given back to the system when they come free.
  static constexpr std::size_t kept_max = 64;

  SlotId take(std::uint64_t attempt, std::size_t bytes) {
    if (free_.empty()) {
      free_.push_back(SlotId(slots_.size()));
      slots_.emplace_back();
    }
    const auto id = free_.back();
    free_.pop_back();
    auto& slot = slots_[id];
    if (slot.capacity < bytes) {
      slot.memory.reset(static_cast<std::uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
      if (slot.memory == nullptr) throw std::bad_alloc();
      slot.capacity = bytes;
    }
    slot.attempt = attempt;
    ++used_;
    return id;
  }
  void give(SlotId id) {
    auto& slot = slots_[id];
    if (slot.attempt == 0) return;
    slot.attempt = 0;
    --used_;
    if (free_.size() >= kept_max) slot.memory.reset(), slot.capacity = 0;
    free_.push_back(id);
  }
  void give_all(std::uint64_t attempt) {
    for (SlotId id = 0; id < slots_.size(); ++id)
      if (slots_[id].attempt == attempt) give(id);
  }
  std::uint8_t* data(SlotId id) { return slots_[id].memory.get(); }
  std::size_t used() const { return used_; }

 private:
  struct Free {
    void operator()(std::uint8_t* p) const { std::free(p); }
  };
  struct Slot {
    std::unique_ptr<std::uint8_t, Free> memory;
    std::size_t capacity = 0;
    std::uint64_t attempt = 0;
  };
  std::vector<Slot> slots_;
  std::vector<SlotId> free_;
  std::size_t used_ = 0;
};

}  // namespace pccl
