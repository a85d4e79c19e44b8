#include "staging/layout.hpp"

namespace pccl::staging {

FileLayout::FileLayout(std::vector<Region> regions, std::uint64_t block_bytes, std::uint64_t slab_bytes)
    : regions_(std::move(regions)), block_bytes_(block_bytes), slab_bytes_(slab_bytes) {
  begins_.reserve(regions_.size() + 1);
  std::uint64_t at = 0;
  for (const Region& region : regions_) {
    begins_.push_back(at);
    at += region.bytes;
  }
  begins_.push_back(at);
}

FileLayout::Blocks FileLayout::blocks_of(std::size_t region) const {
  const auto begin = begins_[region], end = begins_[region + 1];
  if (begin == end) return {};
  return {begin / block_bytes_, (end - 1) / block_bytes_ + 1};
}

// Of several that begin there, the last: those before it have no bytes.
std::size_t FileLayout::region_at(std::uint64_t offset) const {
  const auto after = std::upper_bound(begins_.begin(), begins_.end() - 1, offset);
  return static_cast<std::size_t>(after - begins_.begin()) - 1;
}

}  // namespace pccl::staging
