#pragma once
// Which bytes of memory are which bytes of a file: regions one after the other, cut into checksum blocks,
// several blocks to a slab. Pure; regions may move (another address, the same bytes), nothing else changes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.hpp"

namespace pccl::staging {

struct Region {
  const std::byte* data = nullptr;
  std::uint64_t bytes = 0;
};

class FileLayout {
 public:
  // `slab_bytes` is a multiple of `block_bytes`.
  FileLayout(std::vector<Region> regions, std::uint64_t block_bytes, std::uint64_t slab_bytes);

  std::uint64_t bytes() const { return begins_.back(); }
  std::uint64_t block_bytes() const { return block_bytes_; }
  std::size_t regions() const { return regions_.size(); }
  std::size_t blocks() const { return parts_of(block_bytes_); }
  std::size_t slabs() const { return parts_of(slab_bytes_); }
  std::size_t blocks_per_slab() const { return slab_bytes_ / block_bytes_; }

  std::uint64_t begin_of_block(std::size_t block) const { return block * block_bytes_; }
  std::uint64_t bytes_of_block(std::size_t block) const { return part(block, block_bytes_); }
  std::uint64_t bytes_of_slab(std::size_t slab) const { return part(slab, slab_bytes_); }
  std::size_t slab_of(std::size_t block) const { return block / blocks_per_slab(); }
  std::uint64_t begin_of(std::size_t region) const { return begins_[region]; }

  const Region& region(std::size_t index) const { return regions_[index]; }
  void move(std::size_t region, const std::byte* to) { regions_[region].data = to; }

  // [first, last) of the blocks that hold a region; none for one without bytes.
  struct Blocks {
    std::size_t first = 0, last = 0;
  };
  Blocks blocks_of(std::size_t region) const;

  // The part of a region that lies in one block.
  struct Fragment {
    std::size_t region = 0;
    std::uint64_t at = 0;        // in the region
    std::uint64_t in_block = 0;  // in the block
    std::uint64_t bytes = 0;
  };
  template <class F> void for_fragments(std::size_t block, F f) const {
    const auto begin = begin_of_block(block), end = begin + bytes_of_block(block);
    auto region = region_at(begin);
    for (auto at = begin; at < end; ++region) {
      const auto bytes = std::min(end, begins_[region + 1]) - at;
      if (bytes == 0) continue;
      f(Fragment{region, at - begins_[region], at - begin, bytes});
      at += bytes;
    }
  }

 private:
  std::size_t region_at(std::uint64_t offset) const;
  std::size_t parts_of(std::uint64_t size) const { return (bytes() + size - 1) / size; }
  std::uint64_t part(std::size_t index, std::uint64_t size) const {
    return std::min(size, bytes() - index * size);
  }

  std::vector<Region> regions_;
  std::vector<std::uint64_t> begins_;  // of each region in the file, and the file's end
  std::uint64_t block_bytes_, slab_bytes_;
};

}  // namespace pccl::staging
