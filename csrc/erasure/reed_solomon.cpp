#include "erasure/reed_solomon.hpp"

#include <unistd.h>

#include "erasure/ranges.hpp"

namespace pccl::erasure {

// Written past the caches is what would not stay there anyhow, and ordinary stores would read it first.
bool streams(std::size_t written) {
  static const std::size_t cache = [] {
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const long bytes = ::sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (bytes > 0) return static_cast<std::size_t>(bytes);
#endif
    return std::size_t{1} << 20;
  }();
  return written > cache / 2;
}

namespace {

// Pointers into blocks, so far behind their begin.
template <class Byte> struct Shifted {
  Shifted(std::span<Byte* const> blocks, std::size_t by) : count(blocks.size()) {
    for (std::size_t i = 0; i < count; ++i) at[i] = blocks[i] + by;
  }
  std::span<Byte* const> view() const { return {at.data(), count}; }
  std::array<Byte*, blocks_max> at;
  std::size_t count;
};

void combine(const kernels::GaloisSet& set, Written targets, Read sources, const std::uint8_t* factors,
             std::size_t bytes, std::size_t threads, bool adds) {
  const bool streaming = !adds && streams(targets.size() * bytes);
  for_ranges(bytes, threads, [&](std::size_t, std::size_t first, std::size_t count) {
    const Shifted<std::byte> to(targets, first);
    const Shifted<const std::byte> from(sources, first);
    set.encode({to.view(), from.view(), factors, count, streaming, adds});
  });
}

}  // namespace

void ReedSolomon::encode(Read data, Written parity, std::size_t bytes, std::size_t threads) const {
  combine(*set_, parity, data, rows_.items(), bytes, threads, false);
}

void ReedSolomon::update(Written parity, std::uint32_t slot, const std::byte* old, const std::byte* now,
                         std::size_t bytes, std::size_t threads) const {
  std::vector<std::byte*> targets;
  std::vector<std::uint8_t> factors;
  for (std::uint32_t row = 0; row < code_.parity; ++row) {
    if (parity[row] == nullptr) continue;
    targets.push_back(parity[row]);
    factors.insert(factors.end(), 2, rows_.at(row, slot));
  }
  const std::array<const std::byte*, 2> change{old, now};
  combine(*set_, targets, change, factors.data(), bytes, threads, true);
}

bool ReedSolomon::decode(Written blocks, std::span<const std::uint32_t> present,
                         std::span<const std::uint32_t> lost, std::size_t bytes, std::size_t threads) const {
  const Recipe found = recipe(code_, present, lost);
  if (found.read.empty()) return false;
  std::vector<std::byte*> targets;
  std::vector<const std::byte*> sources;
  for (const std::uint32_t block : lost) targets.push_back(blocks[block]);
  for (const std::uint32_t block : found.read) sources.push_back(blocks[block]);
  combine(*set_, targets, sources, found.factors.items(), bytes, threads, false);
  return true;
}

}  // namespace pccl::erasure
