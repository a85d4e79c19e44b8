#pragma once
// Checksums of one file: of each block, and of each region put together from its parts in blocks. Blocks may
// be added by different threads at the same time, each by one; the sums are read once all are in.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "staging/layout.hpp"

namespace pccl::staging {

class Sums {
 public:
  explicit Sums(const FileLayout& layout);

  // Sums a block: `sum(fragment)` gives the CRC-32 of a fragment. In order.
  template <class F> void add(std::size_t block, F sum) {
    std::uint32_t whole = 0;
    layout_.for_fragments(block, [&](const FileLayout::Fragment& fragment) {
      const std::uint32_t crc = sum(fragment);
      whole = fragment.in_block == 0 ? crc : joined(whole, crc, fragment.bytes);
      note(block, fragment, crc);
    });
    blocks_[block] = whole;
  }

  const std::vector<std::uint32_t>& blocks() const { return blocks_; }
  std::vector<std::uint32_t> regions() const;

 private:
  static std::uint32_t joined(std::uint32_t a, std::uint32_t b, std::uint64_t bytes_b);
  void note(std::size_t block, const FileLayout::Fragment& fragment, std::uint32_t crc);

  // Of the region that came into this block from the one before, and of the one that goes on in the next.
  struct Ends {
    std::uint32_t coming = 0, going = 0;
  };
  const FileLayout& layout_;
  std::vector<std::uint32_t> blocks_;
  std::vector<std::uint32_t> regions_;  // those within one block
  std::vector<Ends> ends_;              // by block
};

}  // namespace pccl::staging
