#include "staging/sums.hpp"

#include "kernels/crc32.hpp"

namespace pccl::staging {

Sums::Sums(const FileLayout& layout)
    : layout_(layout), blocks_(layout.blocks()), regions_(layout.regions()), ends_(layout.blocks()) {}

std::uint32_t Sums::joined(std::uint32_t a, std::uint32_t b, std::uint64_t bytes_b) {
  return kernels::crc32_combine(a, b, bytes_b);
}

void Sums::note(std::size_t block, const FileLayout::Fragment& fragment, std::uint32_t crc) {
  if (fragment.bytes == layout_.region(fragment.region).bytes)
    regions_[fragment.region] = crc;
  else if (fragment.at == 0)
    ends_[block].going = crc;
  else
    ends_[block].coming = crc;
}

std::vector<std::uint32_t> Sums::regions() const {
  auto all = regions_;
  const kernels::Crc32Shift over_a_block(layout_.block_bytes());
  for (std::size_t region = 0; region < all.size(); ++region) {
    const auto [first, last] = layout_.blocks_of(region);
    if (last - first < 2) continue;
    auto crc = ends_[first].going;
    for (auto block = first + 1; block + 1 < last; ++block)
      crc = over_a_block.combine(crc, ends_[block].coming);
    const auto end = layout_.begin_of(region) + layout_.region(region).bytes;
    all[region] = joined(crc, ends_[last - 1].coming, end - layout_.begin_of_block(last - 1));
  }
  return all;
}

}  // namespace pccl::staging
