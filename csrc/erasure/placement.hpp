// Which keepers form a code group, and which block of whom lies in which stripe. Pure arithmetic.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace pccl::erasure {

// Code groups of at least `size` keepers (fewer where there are fewer in all, at most 256), of which each has
// as few as possible of one domain: who shares a host or a rack may vanish together. domains[i]: of keeper i.
// A group lists its keepers in the order of their slots.
std::vector<std::vector<std::uint32_t>> code_groups(std::span<const std::uint32_t> domains,
                                                    std::uint32_t size);

// The stripes of a group of n keepers with m parities, 0 < m < n. Each keeper's snapshot is cut into k = n -
// m blocks. There are n stripes; in each a keeper holds one block, either of its own data or a parity. So a
// keeper holds m parities for others, m/(n - m) of its own size, and the loss of m keepers costs m blocks of
// a stripe.
class Stripes {
 public:
  Stripes(std::uint32_t n, std::uint32_t m) : n_(n), m_(m) {}
  std::uint32_t count() const { return n_; }
  std::uint32_t data() const { return n_ - m_; }
  std::uint32_t parity() const { return m_; }

  // Who holds a block of a stripe: 0 to k - 1 data, k to n - 1 parity. Blocks of data are the keeper's own
  // block with that very number.
  std::uint32_t slot_of(std::uint32_t stripe, std::uint32_t block) const {
    return (stripe + (block < data() ? m_ + block : block - data())) % n_;
  }
  // The reverse: which block of a stripe a slot holds.
  std::uint32_t block_of(std::uint32_t stripe, std::uint32_t slot) const {
    const std::uint32_t place = (slot + n_ - stripe % n_) % n_;
    return place < m_ ? data() + place : place - m_;
  }
  // The stripe in which a slot's block of data, or its parity of a row, lies.
  std::uint32_t stripe_of(std::uint32_t slot, std::uint32_t block) const {
    return (slot + n_ - (block < data() ? m_ + block : block - data()) % n_) % n_;
  }

 private:
  std::uint32_t n_, m_;
};

}  // namespace pccl::erasure
