#include "staging/pool.hpp"

#include <algorithm>
#include <string>

namespace pccl::staging {

StagingPool::StagingPool(std::unique_ptr<WarmMemory> memory, std::size_t slab_bytes, bool populated)
    : memory_(std::move(memory)),
      slab_bytes_(slab_bytes),
      slabs_(memory_->bytes() / slab_bytes),
      huge_(memory_->huge()),
      fresh_(populated ? 0 : slabs_) {
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
  const bool populated = options.populate || options.fd >= 0;
  return std::shared_ptr<StagingPool>(new StagingPool(std::move(*memory), options.slab_bytes, populated));
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

std::byte* StagingPool::take(Ticket ticket) {
  if (!may_take(ticket)) return nullptr;
  if (--wants_.begin()->second == 0) leave(ticket);  // the next one's turn
  if (is_fresh_next()) --fresh_;
  std::byte* const slab = free_.back();
  free_.pop_back();
  return slab;
}

void StagingPool::give(std::byte* slab) {
  free_.push_back(slab);
  monitor_.notify();
}

}  // namespace pccl::staging
