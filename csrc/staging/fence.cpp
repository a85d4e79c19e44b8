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
  tidy();
}

void Fence::need_everything() {
  needed_.resize(capture_.layout_.blocks());
  for (std::size_t block = 0; block < needed_.size(); ++block) needed_[block] = {block, true};
}

void Fence::need(std::size_t region) {
  const auto bytes = capture_.layout_.region(region).bytes;
  if (bytes == 0) return;
  const bool foreign = capture_.foreign_[region];
  const auto small =
      std::min(Stash::region_bytes_max, capture_.layout_.block_bytes());  // in two blocks at most
  if (!foreign && bytes <= small) {
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

bool Fence::is_copied(std::size_t region) const {
  const auto [first, last] = capture_.layout_.blocks_of(region);  // two at most, being small
  return capture_.board_.is_copied(first, false) && capture_.board_.is_copied(last - 1, false);
}

bool Fence::copy(std::size_t block, Lock& lock) {
  const auto job = capture_.board_.claim(block, capture_.take_);
  if (job) capture_.run(*job, lock, Copying::Who::caller);
  return job.has_value();
}

bool Fence::keep_aside(std::size_t region) {
  const auto [first, last] = capture_.layout_.blocks_of(region);
  // Whoever copies a block reads the region's address without the lock.
  const auto& board = capture_.board_;
  if (board.is_being_copied(first) || board.is_being_copied(last - 1)) return false;
  const std::byte* const kept = capture_.stash_.keep(capture_.layout_.region(region));
  if (kept != nullptr) capture_.layout_.move(region, kept);
  return kept != nullptr;
}

bool Fence::settle(std::size_t region, bool dense, Lock& lock, bool& worked) {
  if (is_copied(region)) return true;
  const auto copy_blocks = [&] {
    const auto [first, last] = capture_.layout_.blocks_of(region);
    for (auto block = first; block < last && !capture_.ended(); ++block) worked = copy(block, lock) || worked;
    return is_copied(region);
  };
  // Whichever is cheaper first.
  if (dense && copy_blocks()) return true;
  if (!capture_.ended() && keep_aside(region)) return true;
  return !dense && !capture_.ended() && copy_blocks();
}

bool Fence::settle(const Small& group, Lock& lock, bool& worked) {
  const bool dense = group.bytes * sparse_share >= capture_.layout_.block_bytes();
  bool all = true;
  for (auto i = group.first; i < group.last && !capture_.ended(); ++i) {
    if (small_[i] == 0) continue;
    if (settle(small_[i], dense, lock, worked))
      small_[i] = 0;
    else
      all = false;
  }
  return all;
}

bool Fence::pass_small(Lock& lock, Instant until) {
  bool worked = false;
  std::uint64_t bytes = 0;
  std::size_t kept = 0, i = 0;
  while (i < groups_.size()) {
    const Small group = groups_[i++];
    if (!settle(group, lock, worked)) groups_[kept++] = group;
    if (capture_.ended() || (worked && monotonic_now() >= until)) break;
    if ((bytes += group.bytes) < turn_bytes) continue;
    bytes = 0;
    lock.unlock();
    lock.lock();
  }
  const auto begin = groups_.begin();
  groups_.erase(begin + static_cast<std::ptrdiff_t>(kept), begin + static_cast<std::ptrdiff_t>(i));
  return worked;
}

bool Fence::pass_large(Lock& lock, Instant until) {
  bool worked = false;
  std::size_t kept = 0, i = 0;
  while (i < needed_.size()) {
    const Needed one = needed_[i++];
    worked = copy(one.block, lock) || worked;
    if (!capture_.board_.is_copied(one.block, one.all)) needed_[kept++] = one;
    if (capture_.ended() || (worked && monotonic_now() >= until)) break;
  }
  const auto begin = needed_.begin();
  needed_.erase(begin + static_cast<std::ptrdiff_t>(kept), begin + static_cast<std::ptrdiff_t>(i));
  return worked;
}

bool Fence::pass(Lock& lock, Instant until) {
  const bool worked = pass_small(lock, until);
  return (!capture_.ended() && pass_large(lock, until)) || worked;
}

bool Fence::is_short_of_slabs() const {
  const auto lacks = [this](const auto& one) { return !capture_.board_.has_memory(one.block); };
  return std::any_of(needed_.begin(), needed_.end(), lacks) ||
         std::any_of(groups_.begin(), groups_.end(), lacks);
}

bool Fence::wait(Instant until) {
  Lock lock(capture_.monitor_.mutex);
  const Capture::Waiting waiting(capture_);
  for (;;) {
    const bool worked = !capture_.ended() && pass(lock, until);
    if (capture_.ended() ? capture_.quiet() : needed_.empty() && groups_.empty()) return true;
    if (monotonic_now() >= until) return false;
    if (worked) continue;
    // Slabs come back when they are full: this capture's, or an older one's.
    if (!capture_.ended() && is_short_of_slabs() && capture_.threads_.work(lock, Copying::Who::caller))
      continue;
    Monitor::wait(capture_.monitor_.news, lock, until);
  }
}

}  // namespace pccl::staging
