// Layouts: every element lies in one chunk, whatever the shapes.
#include "check.hpp"
#include "tensor_shapes.hpp"

namespace pccl {
namespace {

using check::bytes_of;
using check::random_shapes;
using check::Shapes;

void check_layout(const Shapes& shapes, std::uint32_t segments, std::uint32_t chunk_bytes, bool weighted) {
  const Layout layout(shapes, segments, chunk_bytes, weighted ? segments : 0);
  CHECK_EQ(layout.bytes(), bytes_of(shapes));
  CHECK_EQ(layout.segment_begin(0), 0);
  CHECK_EQ(layout.segment_end(segments * (weighted ? 2 : 1) - 1), layout.chunks());
  std::uint64_t at = 0;
  std::size_t tensor = 0;
  for (std::uint32_t segment = 0; segment < segments; ++segment) {
    std::uint64_t bytes = 0;
    for (auto c = layout.segment_begin(segment); c < layout.segment_end(segment); ++c) {
      const auto& chunk = layout.chunk(c);
      while (tensor < shapes.size() && at == shapes[tensor].count) ++tensor, at = 0;
      CHECK(!layout.hidden(c));
      CHECK_EQ(chunk.tensor, tensor);
      CHECK_EQ(chunk.offset, at);
      CHECK(chunk.count > 0);
      CHECK_EQ(chunk.dtype, shapes.at(tensor).dtype);
      CHECK(chunk.element_bytes() <= std::max<std::uint64_t>(chunk_bytes, 8));
      at += chunk.count;
      bytes += chunk.element_bytes();
    }
    const auto even = layout.bytes() / segments;
    CHECK(bytes <= even + 80);
    CHECK(bytes + 80 >= even);
  }
  while (tensor < shapes.size() && at == shapes[tensor].count) ++tensor, at = 0;
  CHECK_EQ(tensor, shapes.size());
  for (std::uint32_t i = 0; weighted && i < segments; ++i) {
    REQUIRE(layout.chunks_in(segments + i) == 1);
    const auto& chunk = layout.chunk(layout.segment_begin(segments + i));
    CHECK(layout.hidden(layout.segment_begin(segments + i)));
    CHECK_EQ(chunk.offset, i);
    CHECK_EQ(chunk.element_bytes(), sizeof(double));
  }
}

TEST(layouts_cover_everything_once) {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    Rng rng(seed);
    const auto shapes = random_shapes(rng, 3000);
    check_layout(shapes, std::uint32_t(1 + rng.below(9)), std::uint32_t(64 + rng.below(4000)),
                 rng.chance(0.5));
  }
  check_layout({}, 4, 4096, true);
  check_layout({{DType::float64, 0}, {DType::int8, 0}}, 4, 4096, true);
  check_layout({{DType::int8, 3}}, 9, 4096, false);
  check_layout({{DType::float32, std::uint64_t{1} << 31}}, 3, limits::chunk_bytes_max, false);
}

TEST(chunk_sizes_are_bounded) {
  for (std::uint64_t seed = 1; seed <= 5000; ++seed) {
    Rng rng(seed);
    const auto hint = rng.chance(0.5) ? 0 : std::uint32_t(rng.next() >> (32 + rng.below(32)));
    const auto bytes = choose_chunk_bytes(rng.next() >> rng.below(64), std::uint32_t(rng.below(70'000)),
                                          std::uint32_t(rng.below(256)), hint);
    CHECK(bytes >= limits::chunk_bytes_min);
    CHECK(bytes <= limits::chunk_bytes_max / 2);  // its accumulators fit a frame
    CHECK_EQ(bytes % 64, 0);
  }
  CHECK_EQ(choose_chunk_bytes(std::uint64_t{1} << 40, 4, 2, 0), limits::chunk_bytes_default);
  CHECK_EQ(choose_chunk_bytes(std::uint64_t{1} << 40, 4, 2, 1),
           limits::chunk_bytes_min);  // a hint that makes no sense
  CHECK_EQ(choose_chunk_bytes(1000, 4, 2, 0), limits::chunk_bytes_min);
}

}  // namespace
}  // namespace pccl
