// Many sources into several sums of products: every instruction set of this machine against slow arithmetic,
// for random shapes, odd lengths, unaligned addresses, onto sums, streaming; canaries show stray writes.

#include <algorithm>
#include <memory>

#include "check.hpp"
#include "galois_reference.hpp"
#include "kernels/galois.hpp"
#include "kernels_reference.hpp"

namespace {

using namespace pccl;
using galois_check::slow_product;
using kernels::GaloisSet;
using kernels_check::Buffer;
using kernels_check::Random;

std::vector<const GaloisSet*> all_sets() {
  std::vector<const GaloisSet*> sets;
  for (const auto level : kernels::all_galois_levels) {
    if (const auto* set = kernels::galois_at(level)) sets.push_back(set);
  }
  return sets;
}

struct Shape {
  std::size_t targets, sources, bytes;
  bool streaming, adds, alike;
};

const auto& products() {
  static const auto table = [] {
    auto all = std::make_unique<std::uint8_t[][256]>(256);
    for (unsigned a = 0; a < 256; ++a)
      for (unsigned b = 0; b < 256; ++b) all[a][b] = slow_product(a, b);
    return all;
  }();
  return table;
}

std::vector<std::unique_ptr<Buffer>> buffers(std::size_t count, const Shape& shape, Random& random) {
  std::vector<std::unique_ptr<Buffer>> made;
  const std::size_t shift = random.below(64);
  for (std::size_t i = 0; i < count; ++i) {
    made.push_back(std::make_unique<Buffer>(shape.bytes, shape.alike ? shift : random.below(64)));
    made.back()->fill<std::uint8_t>(shape.bytes, random);
  }
  return made;
}

bool right(const GaloisSet& set, const Shape& shape, Random& random) {
  const auto sources = buffers(shape.sources, shape, random), targets = buffers(shape.targets, shape, random);
  std::vector<std::uint8_t> factors(shape.targets * shape.sources);
  for (auto& factor : factors) factor = static_cast<std::uint8_t>(random.below(256));
  // A plain sum comes first, as parity 0 does; in one of two shapes.
  if (shape.targets > 0 && random.below(2) == 0) std::fill_n(factors.begin(), shape.sources, std::uint8_t{1});
  std::vector<std::vector<std::uint8_t>> expected;
  for (std::size_t t = 0; t < shape.targets; ++t) {
    auto& sum = expected.emplace_back(shape.bytes);
    if (shape.adds) std::copy_n(targets[t]->data(), shape.bytes, sum.begin());
    for (std::size_t s = 0; s < shape.sources; ++s)
      for (std::size_t i = 0; i < shape.bytes; ++i)
        sum[i] ^= products()[factors[t * shape.sources + s]][sources[s]->data()[i]];
  }
  std::vector<const std::byte*> from;
  std::vector<std::byte*> to;
  for (const auto& source : sources) from.push_back(reinterpret_cast<const std::byte*>(source->data()));
  for (const auto& target : targets) to.push_back(reinterpret_cast<std::byte*>(target->data()));
  set.encode({to, from, factors.data(), shape.bytes, shape.streaming, shape.adds});
  bool all = true;
  for (std::size_t t = 0; t < shape.targets; ++t)
    all = all && std::equal(expected[t].begin(), expected[t].end(), targets[t]->data()) &&
          targets[t]->untouched_around();
  return all && std::ranges::all_of(sources, [](const auto& one) { return one->untouched_around(); });
}

}  // namespace

TEST(random_shapes) {
  for (const GaloisSet* set : all_sets()) {
    Random random{31};
    std::size_t wrong = 0;
    for (int i = 0; i < 300; ++i) {
      const Shape shape{1 + random.below(8),  1 + random.below(12), random.below(1500),
                        random.below(2) == 0, random.below(2) == 0, random.below(2) == 0};
      wrong += !right(*set, shape, random);
    }
    CHECK_EQ(wrong, 0u);
  }
}

// More sources than one pass takes, more targets than one reading serves, and none of either.
TEST(many_sources_and_none) {
  for (const GaloisSet* set : all_sets()) {
    Random random{32};
    for (const std::size_t sources : {0u, 63u, 64u, 65u, 200u})
      for (const std::size_t targets : {0u, 1u, 5u, 6u, 7u, 20u})
        for (const bool adds : {false, true})
          CHECK(right(*set, Shape{targets, sources, 700, sources % 2 == 0, adds, true}, random));
  }
}

TEST(every_factor) {
  for (const GaloisSet* set : all_sets()) {
    std::vector<std::uint8_t> source(256);
    for (unsigned value = 0; value < 256; ++value) source[value] = static_cast<std::uint8_t>(value);
    for (unsigned factor = 0; factor < 256; ++factor) {
      std::vector<std::uint8_t> target(256, 7);
      const auto* from = reinterpret_cast<const std::byte*>(source.data());
      auto* to = reinterpret_cast<std::byte*>(target.data());
      const auto c = static_cast<std::uint8_t>(factor);
      set->encode({std::span(&to, 1), std::span(&from, 1), &c, 256, false, false});
      CHECK(std::equal(target.begin(), target.end(), products()[factor]));
    }
  }
}
