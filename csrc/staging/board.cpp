#include "staging/board.hpp"

namespace pccl::staging {

Board::Board(const FileLayout& layout, const std::vector<bool>& foreign)
    : layout_(layout), blocks_(layout.blocks()), slabs_(layout.slabs()), slabs_left_(layout.slabs()) {
  for (std::size_t region = 0; region < layout.regions(); ++region) {
    if (foreign[region]) {
      add_parts(region);
      continue;
    }
    const auto [first, last] = layout.blocks_of(region);
    for (auto block = first; block < last; ++block) blocks_[block].native = true;
  }
  prepare_slabs();
}

void Board::add_parts(std::size_t region) {
  const auto begin = layout_.begin_of(region), end = begin + layout_.region(region).bytes;
  const auto slab_bytes = layout_.blocks_per_slab() * layout_.block_bytes();
  for (auto at = begin; at < end;) {
    const auto slab = at / slab_bytes;
    const auto bytes = std::min(end, (slab + 1) * slab_bytes) - at;
    parts_.push_back({{region, at - begin, nullptr, bytes}, static_cast<std::size_t>(slab)});
    for_blocks_of(parts_.back(), [&](std::size_t block) { ++blocks_[block].foreign_parts; });
    at += bytes;
  }
}

void Board::prepare_slabs() {
  for (std::size_t block = 0; block < blocks_.size(); ++block) {
    Slab& slab = slabs_[layout_.slab_of(block)];
    if (slab.left++ == 0) slab.next = block;
    if (blocks_[block].native)
      ++slab.to_copy;
    else
      blocks_[block].state = State::copied;
  }
}

template <class F> void Board::for_blocks_of(const Part& part, F f) {
  const auto begin = layout_.begin_of(part.where.region) + part.where.at;
  const auto last = (begin + part.where.bytes - 1) / layout_.block_bytes();
  for (auto block = begin / layout_.block_bytes(); block <= last; ++block) f(static_cast<std::size_t>(block));
}

std::byte* Board::memory_of(std::size_t block) const {
  const auto slab = layout_.slab_of(block);
  return slabs_[slab].memory + (block - slab * layout_.blocks_per_slab()) * layout_.block_bytes();
}

bool Board::open(std::size_t slab, const Take& take) {
  if (slabs_[slab].memory != nullptr) return true;
  slabs_[slab].memory = take(slab);
  if (slabs_[slab].memory == nullptr) return false;
  open_.push_back(slab);
  return true;
}

std::optional<std::size_t> Board::slab_to_open() {
  for (; first_unopened_ < slabs_.size(); ++first_unopened_) {
    const Slab& slab = slabs_[first_unopened_];
    if (slab.to_copy > 0 && slab.memory == nullptr) return first_unopened_;
  }
  return std::nullopt;
}

Job Board::begin_copy(std::size_t block) {
  Slab& slab = slabs_[layout_.slab_of(block)];
  --slab.to_copy;
  ++slab.users;
  // Whether it is summed at once is decided here, and kept in the job: foreign parts come at any time.
  const bool mixed = blocks_[block].foreign_parts > 0;
  blocks_[block].state = State::copying;
  return {mixed ? Job::Kind::copy : Job::Kind::copy_and_sum, block, memory_of(block)};
}

std::optional<Job> Board::next_in(std::size_t index) {
  Slab& slab = slabs_[index];
  if (slab.to_copy == 0) return std::nullopt;
  while (blocks_[slab.next].state != State::untouched) ++slab.next;
  return begin_copy(slab.next);
}

std::optional<Job> Board::next(const Take& take) {
  if (!to_sum_.empty()) {
    const auto block = to_sum_.back();
    to_sum_.pop_back();
    blocks_[block].state = State::summing;
    ++slabs_[layout_.slab_of(block)].users;
    return Job{Job::Kind::sum, block, memory_of(block)};
  }
  for (const auto slab : open_)
    if (auto job = next_in(slab)) return job;
  const auto slab = slab_to_open();
  if (!slab || !open(*slab, take)) return std::nullopt;
  return next_in(*slab);
}

std::optional<Job> Board::claim(std::size_t block, const Take& take) {
  if (blocks_[block].state != State::untouched || !open(layout_.slab_of(block), take)) return std::nullopt;
  return begin_copy(block);
}

void Board::copied(std::size_t block) {
  blocks_[block].state = State::copied;
  if (blocks_[block].foreign_parts == 0) to_sum_.push_back(block);
}

std::optional<std::size_t> Board::finish(const Job& job) {
  const auto index = layout_.slab_of(job.block);
  Slab& slab = slabs_[index];
  --slab.users;
  if (job.kind == Job::Kind::copy) {
    copied(job.block);
    return std::nullopt;
  }
  blocks_[job.block].state = State::done;
  staged_bytes_ += layout_.bytes_of_block(job.block);
  if (--slab.left > 0) return std::nullopt;
  std::erase(open_, index);
  slab.at_sink = true;
  --slabs_left_;
  ++at_sink_;
  return index;
}

bool Board::is_copied(std::size_t index, bool all) const {
  const Block& block = blocks_[index];
  const bool native = block.state != State::untouched && block.state != State::copying;
  return native && (!all || block.foreign_parts == 0);
}

bool Board::has_waiting_parts() {
  while (first_part_ < parts_.size() && parts_[first_part_].state != PartState::waiting) ++first_part_;
  return first_part_ < parts_.size();
}

std::optional<ForeignPart> Board::next_part(const Take& take) {
  for (auto i = first_part_; i < parts_.size(); ++i) {
    Part& part = parts_[i];
    if (part.state != PartState::waiting || !open(part.slab, take)) continue;
    part.state = PartState::handed;
    ++slabs_[part.slab].users;
    const auto slab_bytes = layout_.blocks_per_slab() * layout_.block_bytes();
    const auto in_slab = layout_.begin_of(part.where.region) + part.where.at - part.slab * slab_bytes;
    part.where.memory = slabs_[part.slab].memory + in_slab;
    return part.where;
  }
  return std::nullopt;
}

bool Board::part_done(std::size_t region, std::uint64_t at) {
  const auto before = [](const Part& part, const std::pair<std::size_t, std::uint64_t>& place) {
    return std::pair(part.where.region, part.where.at) < place;
  };
  const auto found = std::lower_bound(parts_.begin(), parts_.end(), std::pair(region, at), before);
  if (found == parts_.end() || found->where.region != region || found->where.at != at) return false;
  if (found->state != PartState::handed) return false;
  found->state = PartState::done;
  --slabs_[found->slab].users;
  for_blocks_of(*found, [&](std::size_t block) {
    if (--blocks_[block].foreign_parts == 0 && blocks_[block].state == State::copied)
      to_sum_.push_back(block);
  });
  return true;
}

std::vector<std::byte*> Board::abandon() {
  std::vector<std::byte*> left;
  std::erase_if(open_, [&](std::size_t index) {
    Slab& slab = slabs_[index];
    if (slab.users > 0) return false;
    left.push_back(slab.memory);
    slab.memory = nullptr;
    return true;
  });
  return left;
}

std::byte* Board::release(std::size_t slab) {
  --at_sink_;
  slabs_[slab].at_sink = false;
  return slabs_[slab].memory;  // the address stays: nobody opens the slab again
}

}  // namespace pccl::staging
