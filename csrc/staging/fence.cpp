#include "staging/fence.hpp"

#include <algorithm>

namespace pccl::staging {
namespace {

// Of a block: if less of it is needed, keeping that aside costs less than copying the block.
constexpr std::uint64_t sparse_share = 8;
// Copied under the lock before others get a turn.
constexpr std::uint64_t turn_bytes = std::uint64_t{128} << 10;

}  // namespace

Fence::Fence(Capture& capture, Capture::Regions regions) : capture_(capture) {
  if (!regions) {
    need_everything();
    return;
  }
  std::vector<std::uint32_t> sorted(regions->begin(), regions->end());
  std::sort(sorted.begin(), sorted.end());
  for (const auto index : sorted)
    if (index + std::size_t{1} < capture.layout_.regions()) need(index + std::size_t{1});
  group_small();
}

void Fence::need_everything() {
  needed_.resize(capture_.layout_.blocks());
  for (std::size_t block = 0; block < needed_.size(); ++block) needed_[block] = {block, true};
}

void Fence::need(std::size_t region) {
  const auto bytes = capture_.layout_.region(region).bytes;
  if (bytes == 0) return;
  const bool foreign = capture_.foreign_[region];
  if (!foreign && bytes <= Stash::region_bytes_max) {
    small_.push_back(region);
    return;
  }
  const auto [first, last] = capture_.layout_.blocks_of(region);
  for (auto block = first; block < last; ++block) needed_.push_back({block, foreign});
}

void Fence::group_small() {
  for (std::size_t i = 0; i < small_.size(); ++i) {
    const auto block = capture_.layout_.blocks_of(small_[i]).first;
    if (groups_.empty() || groups_.back().block != block) groups_.push_back({block, i, i, 0});
    groups_.back().last = i + 1;
    groups_.back().bytes += capture_.layout_.region(small_[i]).bytes;
  }
}

void Fence::tidy() {
  std::sort(needed_.begin(), needed_.end());
  const auto same = [](const Needed& a, const Needed& b) { return a.block == b.block; };
  needed_.erase(std::unique(needed_.begin(), needed_.end(), same), needed_.end());
}

bool Fence::sets_aside(const Small& group) const {
  if (group.bytes * sparse_share < capture_.layout_.block_bytes()) return true;
  return !capture_.board_.has_memory(group.block) && !capture_.pool_->may_take(capture_.ticket_);
}

void Fence::set_aside(const Small& group) {
  const bool aside = sets_aside(group);
  auto& layout = capture_.layout_;
  const auto& board = capture_.board_;
  for (auto i = group.first; i < group.last; ++i) {
    const auto region = small_[i];
    const auto [first, last] = layout.blocks_of(region);  // two at most
    const bool copied = board.is_copied(first, false) && board.is_copied(last - 1, false);
    if (copied) continue;
    // Whoever copies a block reads the region's address without the lock.
    const bool moves = aside && !board.is_being_copied(first) && !board.is_being_copied(last - 1);
    const std::byte* const kept = moves ? capture_.stash_.keep(layout.region(region)) : nullptr;
    if (kept != nullptr)
      layout.move(region, kept);
    else
      for (auto block = first; block < last; ++block) needed_.push_back({block, false});
  }
}

void Fence::set_aside(Lock& lock) {
  std::uint64_t bytes = 0;
  for (const Small& group : groups_) {
    if (capture_.ended()) return;
    set_aside(group);
    if ((bytes += group.bytes) < turn_bytes) continue;
    bytes = 0;
    lock.unlock();
    lock.lock();
  }
}

bool Fence::pass(Lock& lock, Instant until) {
  bool worked = false;
  std::size_t kept = 0, i = 0;
  for (; i < needed_.size(); ++i) {
    const Needed one = needed_[i];
    if (const auto job = capture_.board_.claim(one.block, capture_.take_)) {
      capture_.run(*job, lock, Copying::Who::caller);
      worked = true;
    }
    if (!capture_.board_.is_copied(one.block, one.all)) needed_[kept++] = one;
    if (worked && (capture_.ended() || monotonic_now() >= until)) break;
  }
  const auto from = std::min(i + 1, needed_.size());
  needed_.erase(needed_.begin() + static_cast<std::ptrdiff_t>(kept),
                needed_.begin() + static_cast<std::ptrdiff_t>(from));
  return worked;
}

bool Fence::is_short_of_slabs() const {
  return std::any_of(needed_.begin(), needed_.end(),
                     [this](const Needed& one) { return !capture_.board_.has_memory(one.block); });
}

bool Fence::wait(Instant until) {
  Lock lock(capture_.monitor_.mutex);
  if (!capture_.ended()) set_aside(lock);
  tidy();
  for (;;) {
    if (capture_.ended()) {
      if (capture_.quiet()) return true;
    } else {
      const bool worked = pass(lock, until);
      if (needed_.empty()) return true;
      if (worked && monotonic_now() < until) continue;
    }
    if (monotonic_now() >= until) return false;
    // Slabs come back when they are full: this capture's, or an older one's.
    if (!capture_.ended() && is_short_of_slabs() && capture_.threads_.work(lock, Copying::Who::caller))
      continue;
    Monitor::wait(capture_.monitor_.news, lock, until);
  }
}

}  // namespace pccl::staging
