// Files in blocks and slabs, and checksums put together, on states of random shapes.

#include <map>

#include "check.hpp"
#include "staging/layout.hpp"
#include "staging/sums.hpp"
#include "staging_fixture.hpp"

using namespace pccl;
using namespace pccl::check;
using staging::FileLayout;

namespace {

FileLayout layout_of(const State& state) {
  std::vector<Region> regions{{state.header.data(), state.header.size()}};
  for (const auto& region : state.regions)
    regions.push_back({reinterpret_cast<const std::byte*>(region.data()), region.size()});
  return {regions, block_bytes, slab_bytes};
}

}  // namespace

TEST(fragments_are_the_file_in_order) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const State state(random_sizes(seed, 1 + seed * 7 % 60, 20'000), seed, seed % 3 * 1000);
    const auto layout = layout_of(state);
    CHECK_EQ(layout.bytes(), state.expected.size());
    std::vector<std::uint8_t> file;
    for (std::size_t block = 0; block < layout.blocks(); ++block) {
      CHECK_EQ(layout.begin_of_block(block), file.size());
      layout.for_fragments(block, [&](const FileLayout::Fragment& part) {
        CHECK(part.bytes > 0);
        CHECK_EQ(layout.begin_of_block(block) + part.in_block, file.size());
        const auto* at = reinterpret_cast<const std::uint8_t*>(layout.region(part.region).data + part.at);
        file.insert(file.end(), at, at + part.bytes);
        const auto [first, last] = layout.blocks_of(part.region);
        CHECK(first <= block && block < last);
      });
    }
    CHECK(file == state.expected);
  }
}

TEST(sums_of_blocks_and_regions_whatever_order_they_come_in) {
  const auto& crc32 = kernels::best_crc32();
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Rng rng(seed);
    const State state(random_sizes(seed, 1 + seed % 40, 40'000), seed);
    const auto layout = layout_of(state);
    staging::Sums sums(layout);
    std::vector<std::size_t> order(layout.blocks());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
    for (const auto block : order)
      sums.add(block, [&](const FileLayout::Fragment& part) {
        return crc32.of(layout.region(part.region).data + part.at, part.bytes);
      });
    const auto regions = sums.regions();
    for (std::size_t i = 0; i < layout.regions(); ++i)
      CHECK_EQ(regions[i], crc32.of(layout.region(i).data, layout.region(i).bytes));
    for (std::size_t i = 0; i < layout.blocks(); ++i)
      CHECK_EQ(sums.blocks()[i],
               crc32.of(state.expected.data() + layout.begin_of_block(i), layout.bytes_of_block(i)));
  }
}

TEST(nothing_at_all) {
  const FileLayout layout({}, block_bytes, slab_bytes);
  CHECK_EQ(layout.bytes(), 0);
  CHECK_EQ(layout.blocks(), 0);
  CHECK_EQ(layout.slabs(), 0);
  const FileLayout empty({{nullptr, 0}, {nullptr, 0}}, block_bytes, slab_bytes);
  CHECK_EQ(empty.blocks(), 0);
  CHECK_EQ(staging::Sums(empty).regions().size(), 2);
}
