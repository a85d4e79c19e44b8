#include "staging/pool.hpp"

#include <algorithm>
#include <string>

#include "staging/yielding.hpp"

namespace pccl::staging {

namespace {

// In place they count as there: waiting for another slab would be of no use.
bool has_pages(const PoolOptions& options) { return options.populate || options.fd >= 0 || options.in_place; }

}  // namespace

StagingPool::StagingPool(std::unique_ptr<WarmMemory> memory, const PoolOptions& options)
    : memory_(std::move(memory)),
      slab_bytes_(options.slab_bytes),
      slabs_(memory_->bytes() / options.slab_bytes),
      huge_(memory_->huge()),
      in_place_(options.in_place),
      fresh_(has_pages(options) ? 0 : slabs_) {
  for (std::size_t i = slabs_; i-- > 0;) free_.push_back(memory_->data() + i * slab_bytes_);
}

StagingPool::~StagingPool() = default;

Result<std::shared_ptr<StagingPool>> StagingPool::make(const PoolOptions& options) {
  constexpr std::uint64_t bytes_max = std::uint64_t{1} << 46;  // far from overflow, beyond any machine
  if (options.bytes == 0 || options.bytes > bytes_max)
    return Error{ErrorCode::usage,
                 "a staging pool has 1 byte to 64 TiB, not " + std::to_string(options.bytes)};
  if (options.slab_bytes == 0 || options.slab_bytes % 4096 != 0)
    return Error{ErrorCode::usage, "slabs are multiples of 4096 bytes"};
  const auto slabs = (options.bytes + options.slab_bytes - 1) / options.slab_bytes;
  auto memory = WarmMemory::map(slabs * options.slab_bytes, options.fd, options.huge_pages, options.populate);
  if (!memory) return memory.error();
  return std::shared_ptr<StagingPool>(new StagingPool(std::move(*memory), options));
}

std::size_t StagingPool::free() const {
  if (!ours()) return 0;
  const Lock lock(monitor_.mutex);
  return free_.size();
}

std::byte* StagingPool::address() const {
  if (!ours()) return nullptr;
  const Lock lock(monitor_.mutex);
  return memory_ == nullptr ? nullptr : memory_->data();
}

std::byte* StagingPool::pick_fresh() {
  if (fresh_ == 0 || !warms_) return nullptr;
  const auto next = free_.begin() + static_cast<std::ptrdiff_t>(--fresh_);
  std::byte* const slab = *next;
  free_.erase(next);
  return slab;
}

void StagingPool::warm() {
  if (!ours()) return;
  yield_to_others("pccl-warm");
  Lock lock(monitor_.mutex);
  for (;;) {
    // The first save has the memory's bandwidth, and takes slabs that have pages again and again.
    while (warms_ && !wants_.empty()) monitor_.news.wait(lock);
    std::byte* const slab = pick_fresh();
    if (slab == nullptr) return;
    lock.unlock();
    touch_pages(slab, slab_bytes_);
    lock.lock();
    give(slab);
  }
}

void StagingPool::stop_warming() {
  if (!ours()) return;
  const Lock lock(monitor_.mutex);
  warms_ = false;
  monitor_.notify();
}

Error StagingPool::close() {
  if (!ours()) return {};
  std::unique_ptr<WarmMemory> memory;  // unmapped after the lock is free: that takes its time
  const Lock lock(monitor_.mutex);
  if (memory_ == nullptr) return {};
  if (const auto used = slabs_ - free_.size(); used > 0 || !wants_.empty())
    return {ErrorCode::usage, "the staging pool is in use (" + std::to_string(used) +
                                  " slabs): wait for its saves, or cancel them, then close it"};
  memory = std::move(memory_);
  free_.clear();
  fresh_ = 0;
  return {};
}

StagingPool::Ticket StagingPool::enter(std::uint64_t wants) {
  const Ticket ticket = next_++;
  if (wants > 0) wants_.emplace(ticket, wants);
  return ticket;
}

void StagingPool::leave(Ticket ticket) {
  if (wants_.erase(ticket) > 0) monitor_.notify();
}

bool StagingPool::may_take(Ticket ticket) const {
  return !free_.empty() && !wants_.empty() && wants_.begin()->first == ticket;
}

std::byte* StagingPool::pick(std::size_t slab) {
  auto found = free_.end() - 1;
  if (is_fresh_next()) --fresh_;
  if (in_place_) {
    if (slab >= slabs_) return nullptr;
    found = std::find(free_.begin(), free_.end(), memory_->data() + slab * slab_bytes_);
    if (found == free_.end()) return nullptr;
  }
  std::byte* const picked = *found;
  free_.erase(found);
  return picked;
}

std::byte* StagingPool::take(Ticket ticket, std::size_t slab) {
  if (!may_take(ticket)) return nullptr;
  std::byte* const picked = pick(slab);
  if (picked != nullptr && --wants_.begin()->second == 0) leave(ticket);  // the next one's turn
  return picked;
}

void StagingPool::give(std::byte* slab) {
  free_.push_back(slab);
  monitor_.notify();
}

}  // namespace pccl::staging
