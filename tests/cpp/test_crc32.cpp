// CRC-32: every instruction set of this machine against a division bit by bit, for all short lengths and
// addresses, in parts, while copying; and sums of parts joined.

#include <vector>

#include "check.hpp"
#include "kernels/crc32.hpp"
#include "kernels_reference.hpp"

namespace {

using namespace pccl;
using kernels::Crc32Set;
using kernels_check::Buffer;
using kernels_check::Random;

std::vector<const Crc32Set*> all_sets() {
  std::vector<const Crc32Set*> sets;
  for (const auto level : kernels::all_crc32_levels) {
    if (const auto* set = kernels::crc32_at(level)) sets.push_back(set);
  }
  return sets;
}

std::uint32_t slow_crc32(const std::uint8_t* at, std::size_t bytes) {
  std::uint32_t state = 0xffffffff;
  for (std::size_t i = 0; i < bytes; ++i) {
    state ^= at[i];
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? 0xedb88320u : 0u);
  }
  return ~state;
}

std::vector<std::uint8_t> noise(std::size_t bytes, Random& random) {
  std::vector<std::uint8_t> data(bytes);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(random.below(256));
  return data;
}

// Sums the bytes, plainly and while they are copied to another misaligned place.
void check_sums(const Crc32Set& set, const std::uint8_t* at, std::size_t bytes, std::size_t shift,
                std::uint32_t expected) {
  CHECK_EQ(set.of(at, bytes), expected);
  Buffer copied(bytes, shift);
  CHECK_EQ(set.copy(copied.data(), at, bytes), expected);
  CHECK(std::equal(at, at + bytes, copied.data()));
  CHECK(copied.untouched_around());
}

}  // namespace

// The check value of the catalogue of parametrised CRCs, and what zlib says of runs of equal bytes.
TEST(known_texts) {
  const std::vector<std::uint8_t> zeros(32), ones(32, 0xff);
  for (const Crc32Set* set : all_sets()) {
    CHECK_EQ(set->of("123456789", 9), 0xcbf43926u);
    CHECK_EQ(set->of(zeros.data(), 32), 0x190a55adu);
    CHECK_EQ(set->of(ones.data(), 32), 0xff6cab0bu);
    CHECK_EQ(set->of(nullptr, 0), 0u);
    CHECK_EQ(set->of(nullptr, 0, 0x12345678), 0x12345678u);
  }
}

TEST(all_lengths_and_addresses) {
  Random random(1);
  const auto data = noise(700, random);
  for (std::size_t bytes = 0; bytes <= 600; ++bytes) {
    for (std::size_t shift = 0; shift < 64; shift += bytes % 7 + 1) {
      const auto expected = slow_crc32(data.data() + shift, bytes);
      for (const Crc32Set* set : all_sets())
        check_sums(*set, data.data() + shift, bytes, (shift * 5 + bytes) % 64, expected);
    }
  }
}

TEST(long_ones) {
  Random random(2);
  const auto data = noise(100'000, random);
  for (const std::size_t bytes : {1023u, 1024u, 3071u, 3072u, 3073u, 8191u, 8193u, 65536u, 99'999u}) {
    const auto expected = slow_crc32(data.data() + 1, bytes);
    for (const Crc32Set* set : all_sets()) check_sums(*set, data.data() + 1, bytes, 3, expected);
  }
}

TEST(in_parts_and_joined) {
  Random random(3);
  const auto data = noise(600, random);
  for (const Crc32Set* set : all_sets()) {
    for (std::size_t bytes = 0; bytes <= 600; bytes += 3) {
      const auto whole = slow_crc32(data.data(), bytes);
      for (std::size_t cut = 0; cut <= bytes; cut += 1 + random.below(40)) {
        const auto first = set->of(data.data(), cut);
        const auto second = set->of(data.data() + cut, bytes - cut);
        CHECK_EQ(set->of(data.data() + cut, bytes - cut, first), whole);
        CHECK_EQ(kernels::crc32_combine(first, second, bytes - cut), whole);
      }
    }
  }
}

TEST(joined_over_distances_that_no_memory_holds) {
  const std::uint64_t far = (std::uint64_t{1} << 40) + 12345;
  const auto once = kernels::crc32_combine(0x12345678, 0, far);
  auto steps = std::uint32_t{0x12345678};
  for (int i = 0; i < 1024; ++i) steps = kernels::crc32_combine(steps, 0, std::uint64_t{1} << 30);
  CHECK_EQ(kernels::crc32_combine(steps, 0, 12345), once);
  const kernels::Crc32Shift shift(far);
  CHECK_EQ(shift.combine(0x12345678, 7), once ^ 7);
  CHECK_EQ(kernels::crc32_combine(1, 2, 0), 1u ^ 2u);
}

TEST(every_flipped_bit_shows) {
  Random random(4);
  auto data = noise(300, random);
  for (const Crc32Set* set : all_sets()) {
    const auto whole = set->of(data.data(), data.size());
    for (std::size_t bit = 0; bit < 8 * data.size(); ++bit) {
      data[bit / 8] ^= static_cast<std::uint8_t>(1u << bit % 8);
      CHECK(set->of(data.data(), data.size()) != whole);
      data[bit / 8] ^= static_cast<std::uint8_t>(1u << bit % 8);
    }
  }
}
