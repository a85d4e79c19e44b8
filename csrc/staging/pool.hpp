#pragma once
// Staging slabs: warm memory, made once, that captures take and give back. Captures that share a pool get
// slabs in the order in which they entered: the oldest that still wants some comes first. Any thread.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/result.hpp"
#include "staging/memory.hpp"
#include "staging/monitor.hpp"

namespace pccl::staging {

// Large enough for the fastest writing (16 MiB measured), small enough that a pool of few is useful.
inline constexpr std::size_t slab_bytes_default = std::size_t{16} << 20;

struct PoolOptions {
  std::uint64_t bytes = 0;  // rounded up to whole slabs
  int fd = -1;              // see WarmMemory
  bool huge_pages = true;
  bool populate = true;   // false: pages of private memory come with the first copy, on its thread
  bool in_place = false;  // slab n is for slab n of a file and for no other: the file stays there
  std::size_t slab_bytes = slab_bytes_default;  // a multiple of 4096
};

class StagingPool {
 public:
  static Result<std::shared_ptr<StagingPool>> make(const PoolOptions& options);
  ~StagingPool();
  StagingPool(const StagingPool&) = delete;
  StagingPool& operator=(const StagingPool&) = delete;

  std::size_t bytes() const { return slabs_ * slab_bytes_; }
  std::size_t slab_bytes() const { return slab_bytes_; }
  std::size_t slabs() const { return slabs_; }
  std::size_t free() const;
  std::byte* address() const;  // of the first slab, the others follow; null once closed
  bool huge() const { return huge_; }
  bool in_place() const { return in_place_; }
  bool ours() const { return monitor_.ours(); }  // false in a forked child, which has no such memory
  // Gives pages to slabs that nobody has used, one after the other, on the calling thread, which yields to
  // others from then on; it waits while captures want slabs. Returns when there is none left, and
  // at stop_warming().
  void warm();
  void stop_warming();
  // Unmaps it. An error while slabs are in use.
  Error close();

  // --- For captures, under the monitor's lock.
  using Ticket = std::uint64_t;
  Ticket enter(std::uint64_t wants);  // so many slabs, over time
  void leave(Ticket ticket);          // wants no more
  // Memory for this slab of a file. Null: none (in place: not that one) is free, or an older capture comes
  // first.
  std::byte* take(Ticket ticket, std::size_t slab = 0);
  bool may_take(Ticket ticket) const;
  void give(std::byte* slab);
  bool closed() const { return memory_ == nullptr; }
  // The slab that take() would give has no pages yet: nobody has used it, and it was not populated.
  bool is_fresh_next() const { return fresh_ > 0 && free_.size() == fresh_; }

 private:
  StagingPool(std::unique_ptr<WarmMemory> memory, const PoolOptions& options);
  std::byte* pick(std::size_t slab);
  std::byte* pick_fresh();

  Monitor& monitor_ = Monitor::here();
  std::unique_ptr<WarmMemory> memory_;
  const std::size_t slab_bytes_, slabs_;
  const bool huge_, in_place_;
  std::vector<std::byte*> free_;  // the one given back last is taken first: it may be in the cache
  std::size_t fresh_ = 0;         // the first so many of free_ have no pages yet
  bool warms_ = true;             // until stop_warming()
  std::map<Ticket, std::uint64_t> wants_;
  Ticket next_ = 1;
};

}  // namespace pccl::staging
