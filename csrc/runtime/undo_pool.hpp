// Buffers for undo copies, kept warm from one operation to the next: fresh memory costs a page fault per
// 4 KiB, more than the copy itself. Small ones are plain memory; from a huge page on they are mapped as such.
// Owned by the I/O thread.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <new>

#include "base/clock.hpp"

namespace pccl {

class UndoPool {
 public:
  struct Free {
    Free() : bytes(0) {}
    explicit Free(std::size_t size) : bytes(size) {}
    std::size_t bytes;
    void operator()(std::uint8_t* p) const {
      if (bytes < huge_page)
        ::operator delete(p, cache_line);
      else
        ::munmap(p, bytes);
    }
  };
  using Buffer = std::unique_ptr<std::uint8_t, Free>;
  static constexpr Duration kept_for = 30 * second;
  static constexpr std::size_t huge_page = 2u << 20;
  // Many fragments in flight find theirs again. Beside them the largest buffer is kept, whatever its size: a
  // run whose every step reduces one large tensor.
  static constexpr std::size_t kept_bytes_max = 256u << 20;

  Buffer take(std::size_t bytes) {
    const auto size = size_class(bytes);
    if (const auto it = kept_.lower_bound(size); it != kept_.end() && it->first <= 2 * size)
      return take_kept(it);
    if (size < huge_page)
      return Buffer(static_cast<std::uint8_t*>(::operator new(size, cache_line)), Free(size));
    auto* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    ::madvise(memory, size, MADV_HUGEPAGE);
    return Buffer(static_cast<std::uint8_t*>(memory), Free(size));
  }
  void give(Buffer buffer, Instant now) {
    if (buffer == nullptr) return;
    const auto bytes = buffer.get_deleter().bytes;
    kept_bytes_ += bytes;
    kept_[bytes].push_back({std::move(buffer), now});
    while (kept_bytes_ - kept_.rbegin()->first > kept_bytes_max) drop(oldest());
  }
  // An operation that comes once must not hold its memory for the rest of the run.
  void tick(Instant now) {
    while (!kept_.empty() && now - oldest()->second.front().given_at > kept_for) drop(oldest());
  }
  std::size_t kept_bytes() const { return kept_bytes_; }

 private:
  static constexpr std::align_val_t cache_line{64};
  struct Kept {
    Buffer buffer;
    Instant given_at = 0;
  };
  using BySize =
      std::map<std::size_t, std::deque<Kept>>;  // each list from the oldest to the newest, none empty

  // Powers of two, and whole huge pages: few sizes, so that one operation's buffer fits the next.
  static std::size_t size_class(std::size_t bytes) {
    if (bytes > huge_page / 2) return (bytes + huge_page - 1) / huge_page * huge_page;
    return std::bit_ceil(std::max<std::size_t>(bytes, 64));
  }
  Buffer take_kept(BySize::iterator it) {  // the newest: it is the warmest
    auto buffer = std::move(it->second.back().buffer);
    it->second.pop_back();
    kept_bytes_ -= it->first;
    if (it->second.empty()) kept_.erase(it);
    return buffer;
  }
  BySize::iterator oldest() {
    auto found = kept_.begin();
    for (auto it = kept_.begin(); it != kept_.end(); ++it)
      if (it->second.front().given_at < found->second.front().given_at) found = it;
    return found;
  }
  void drop(BySize::iterator it) {
    kept_bytes_ -= it->first;
    it->second.pop_front();
    if (it->second.empty()) kept_.erase(it);
  }

  BySize kept_;
  std::size_t kept_bytes_ = 0;
};

}  // namespace pccl
