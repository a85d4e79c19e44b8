// Copy, checksum and parities while a tile of the data is in the caches: memory is read once.
#include <algorithm>

#include "erasure/ranges.hpp"
#include "erasure/reed_solomon.hpp"
#include "kernels/crc32.hpp"

namespace pccl::erasure {

namespace {

constexpr std::size_t tile_bytes = 16 << 10;  // of each block

// The CRC of the whole from those of its ranges.
std::uint32_t joined(std::span<const std::uint32_t> sums, std::size_t bytes, std::size_t each) {
  std::uint32_t whole = sums[0];
  for (std::size_t part = 1; part * each < bytes; ++part)
    whole = kernels::crc32c_combine(whole, sums[part], std::min(each, bytes - part * each));
  return whole;
}

}  // namespace

std::uint32_t copy_summed(std::byte* to, const std::byte* from, std::size_t bytes, std::size_t threads) {
  std::vector<std::uint32_t> sums(std::max<std::size_t>(threads, 1));
  const bool streaming = streams(bytes);
  for_ranges(bytes, threads, [&](std::size_t part, std::size_t first, std::size_t count) {
    sums[part] = kernels::best_crc32c().copy(to + first, from + first, count, 0, streaming);
  });
  return joined(sums, bytes, range_bytes(bytes, threads));
}

// `sums`: CRCs of the range, one for each block.
void ReedSolomon::copy_range(Read data, Written copies, Written parity, std::size_t first, std::size_t count,
                             std::span<std::uint32_t> sums) const {
  const auto& crc32c = kernels::best_crc32c();
  std::vector<const std::byte*> from(data.size());
  std::vector<std::byte*> to(parity.size());
  for (std::size_t at = first; at < first + count; at += tile_bytes) {
    const std::size_t bytes = std::min(tile_bytes, first + count - at);
    for (std::size_t i = 0; i < data.size(); ++i) {
      from[i] = copies[i] + at;  // what was copied is what counts, should the data change meanwhile
      sums[i] = crc32c.copy(copies[i] + at, data[i] + at, bytes, sums[i]);
    }
    for (std::size_t i = 0; i < parity.size(); ++i) to[i] = parity[i] + at;
    set_->encode({to, from, rows_.items(), bytes, true, false});
  }
}

std::vector<std::uint32_t> ReedSolomon::encode_copying(Read data, Written copies, Written parity,
                                                       std::size_t bytes, std::size_t threads) const {
  const std::size_t parts = std::max<std::size_t>(threads, 1);
  std::vector<std::vector<std::uint32_t>> sums(data.size(), std::vector<std::uint32_t>(parts));
  for_ranges(bytes, threads, [&](std::size_t part, std::size_t first, std::size_t count) {
    std::array<std::uint32_t, blocks_max> of_range{};
    copy_range(data, copies, parity, first, count, of_range);
    for (std::size_t i = 0; i < data.size(); ++i) sums[i][part] = of_range[i];
  });
  std::vector<std::uint32_t> whole;
  for (const auto& of_block : sums) whole.push_back(joined(of_block, bytes, range_bytes(bytes, threads)));
  return whole;
}

}  // namespace pccl::erasure
