// Large buffers for undo copies, kept warm from one operation to the next: fresh memory costs a page fault
// per 4 KiB, more than the copy itself. Owned by the I/O thread.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <memory>
#include <new>

#include "base/clock.hpp"

namespace pccl {

class UndoPool {
 public:
  struct Unmap {
    Unmap() : bytes(0) {}
    explicit Unmap(std::size_t size) : bytes(size) {}
    std::size_t bytes;
    void operator()(std::uint8_t* p) const { ::munmap(p, bytes); }
  };
  using Buffer = std::unique_ptr<std::uint8_t, Unmap>;
  static constexpr Duration kept_for = 30 * second;

  Buffer take(std::size_t bytes) {
    if (kept_ != nullptr && kept_.get_deleter().bytes >= bytes) return std::move(kept_);
    kept_.reset();
    const auto size = (std::max<std::size_t>(bytes, 1) + huge_page - 1) / huge_page * huge_page;
    auto* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    ::madvise(memory, size, MADV_HUGEPAGE);
    return Buffer(static_cast<std::uint8_t*>(memory), Unmap(size));
  }
  void give(Buffer buffer, Instant now) {
    if (buffer == nullptr) return;
    if (kept_ == nullptr || kept_.get_deleter().bytes < buffer.get_deleter().bytes) kept_ = std::move(buffer);
    used_at_ = now;
  }
  // An operation that comes once must not hold its memory for the rest of the run.
  void tick(Instant now) {
    if (kept_ != nullptr && now - used_at_ > kept_for) kept_.reset();
  }

 private:
  static constexpr std::size_t huge_page = 2u << 20;
  Buffer kept_;
  Instant used_at_ = 0;
};

}  // namespace pccl
