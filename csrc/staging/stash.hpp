#pragma once
// Small regions that had to be safe at once, copied out of their place: far apart in the file, or while the
// pool was short of slabs. Bounded; lives as long as its capture. Under the monitor's lock.

#include <cstring>
#include <memory>
#include <vector>

#include "staging/layout.hpp"

namespace pccl::staging {

class Stash {
 public:
  // Larger ones are copied in place: their blocks are theirs alone.
  static constexpr std::uint64_t region_bytes_max = std::uint64_t{64} << 10;
  static constexpr std::uint64_t bytes_max = std::uint64_t{16} << 20;

  // Null: it is full, or there is no memory.
  const std::byte* keep(const Region& region) {
    if (bytes_ + region.bytes > bytes_max) return nullptr;
    if (left_ < region.bytes) {
      chunks_.emplace_back(new (std::nothrow) std::byte[chunk_bytes]);
      if (chunks_.back() == nullptr) {
        chunks_.pop_back();
        return nullptr;
      }
      left_ = chunk_bytes;
    }
    std::byte* const to = chunks_.back().get() + chunk_bytes - left_;
    std::memcpy(to, region.data, region.bytes);
    left_ -= region.bytes;
    bytes_ += region.bytes;
    return to;
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t chunk_bytes = std::size_t{256} << 10;
  static_assert(region_bytes_max <= chunk_bytes);
  std::vector<std::unique_ptr<std::byte[]>> chunks_;
  std::uint64_t left_ = 0;  // of the last chunk
  std::uint64_t bytes_ = 0;
};

}  // namespace pccl::staging
