// CRC-32C of every instruction set of this machine against tables: all short lengths and addresses, in parts,
// joined, and while bytes are copied, also past the caches; so copied with the other polynomial as well.

#include <algorithm>

#include "base/crc32c.hpp"
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
    if (const auto* set = kernels::crc32c_at(level)) sets.push_back(set);
  }
  return sets;
}

Bytes noise(std::size_t bytes, Random& random) {
  Bytes data(bytes);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(random.below(256));
  return data;
}

void check_copy(const Crc32Set& set, const std::uint8_t* at, std::size_t bytes, std::size_t shift,
                bool streaming, std::uint32_t expected) {
  Buffer copied(bytes, shift);
  CHECK_EQ(set.copy(copied.data(), at, bytes, 0, streaming), expected);
  CHECK(std::equal(at, at + bytes, copied.data()));
  CHECK(copied.untouched_around());
}

}  // namespace

TEST(known_text) {
  for (const Crc32Set* set : all_sets()) {
    CHECK_EQ(set->of("123456789", 9), 0xe3069283u);
    CHECK_EQ(set->of(nullptr, 0, 0x12345678), 0x12345678u);
  }
  CHECK(kernels::best_crc32c().level() == kernels::best_crc32().level());
}

TEST(all_lengths_and_addresses) {
  Random random(1);
  const auto data = noise(700, random);
  for (std::size_t bytes = 0; bytes <= 600; ++bytes) {
    for (std::size_t shift = 0; shift < 64; shift += bytes % 7 + 1) {
      const auto expected = crc32c_by_table(ByteView(data).subspan(shift, bytes));
      for (const Crc32Set* set : all_sets()) {
        CHECK_EQ(set->of(data.data() + shift, bytes), expected);
        check_copy(*set, data.data() + shift, bytes, (shift * 5 + bytes) % 64, bytes % 2 == 0, expected);
      }
    }
  }
}

TEST(long_ones_past_the_caches) {
  Random random(2);
  const auto data = noise(100'000, random);
  for (const std::size_t bytes : {1023u, 1024u, 1025u, 3072u, 8191u, 65536u, 99'999u}) {
    const auto expected = crc32c_by_table(ByteView(data).subspan(1, bytes));
    const auto ieee = kernels::crc32_at(kernels::Crc32Level::scalar)->of(data.data() + 1, bytes);
    for (const std::size_t shift : {0u, 1u, 63u}) {
      for (const Crc32Set* set : all_sets()) {
        check_copy(*set, data.data() + 1, bytes, shift, true, expected);
        check_copy(*kernels::crc32_at(set->level()), data.data() + 1, bytes, shift, true, ieee);
      }
    }
  }
}

TEST(in_parts_and_joined) {
  Random random(3);
  const auto data = noise(5000, random);
  const auto whole = crc32c_by_table(data);
  for (const Crc32Set* set : all_sets()) {
    for (std::size_t cut = 0; cut <= data.size(); cut += 97) {
      const auto first = set->of(data.data(), cut);
      CHECK_EQ(set->of(data.data() + cut, data.size() - cut, first), whole);
      const auto second = set->of(data.data() + cut, data.size() - cut);
      CHECK_EQ(kernels::crc32c_combine(first, second, data.size() - cut), whole);
    }
  }
}
