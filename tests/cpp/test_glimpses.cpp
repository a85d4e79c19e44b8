// Lines that are asked for ahead, and a few bytes of many tensors at two moments.
#include <array>
#include <limits>
#include <string>

#include "base/prefetch.hpp"
#include "check.hpp"
#include "staging/glimpses.hpp"

namespace pccl {
namespace {

std::uint64_t address_of(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory); }

}  // namespace

TEST(an_object_s_lines_are_asked_for_whole) {
  Prefetch prefetch;
  prefetch.add(640, 64);
  CHECK_EQ(prefetch.lines(), 1);
  prefetch.add(639, 2);  // across a border
  CHECK_EQ(prefetch.lines(), 3);
  prefetch.add(7, 0);
  CHECK_EQ(prefetch.lines(), 3);
}

TEST(any_address_may_be_asked_for) {
  Prefetch prefetch;
  for (const std::uint64_t address : {std::uint64_t{0}, std::uint64_t{1} << 47, ~std::uint64_t{0}})
    prefetch.add(address, std::numeric_limits<std::uint64_t>::max());
  prefetch.begin();
  CHECK(prefetch.lines() <= 3 * (Prefetch::object_bytes_max / Prefetch::line_bytes + 1));
}

TEST(glimpses_are_of_the_moment) {
  std::string one = "abcdef", two = "uvwxyz";
  const staging::Glimpses glimpses({{address_of(one.data()), 2}, {address_of(two.data()) + 3, 3}});
  REQUIRE(glimpses.size() == 2);
  REQUIRE(glimpses.bytes(0, 2) == 5);
  std::array<char, 5> taken{};
  glimpses.take(0, 2, taken.data());
  CHECK_EQ(std::string(taken.data(), 5), "abxyz");
  two[4] = '!';
  glimpses.take(1, 2, taken.data());
  CHECK_EQ(std::string(taken.data(), glimpses.bytes(1, 2)), "x!z");
}

}  // namespace pccl
