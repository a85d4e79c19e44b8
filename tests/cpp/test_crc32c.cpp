#include "base/crc32c.hpp"
#include "base/rng.hpp"
#include "check.hpp"

using namespace pccl;

namespace {
Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }
}  // namespace

// From RFC 3720, B.4, and the check value of the catalogue of parametrised CRCs.
TEST(crc32c_of_known_texts) {
  for (const auto crc : {crc32c, crc32c_by_table}) {
    CHECK_EQ(crc(bytes_of("123456789"), 0), 0xe3069283u);
    CHECK_EQ(crc(Bytes(32, 0), 0), 0x8a9136aau);
    CHECK_EQ(crc(Bytes(32, 0xff), 0), 0x62a8ab43u);
    CHECK_EQ(crc({}, 0), 0u);
  }
}

TEST(crc32c_is_the_same_by_instruction_by_table_and_in_parts) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    Bytes data(rng.below(20'000));
    for (auto& byte : data) byte = std::uint8_t(rng.next());
    const auto whole = crc32c_by_table(data);
    CHECK_EQ(crc32c(data), whole);
    const auto cut = rng.below(data.size() + 1);
    CHECK_EQ(crc32c(ByteView(data).subspan(cut), crc32c(ByteView(data).first(cut))), whole);
    if (data.empty()) continue;
    data[rng.below(data.size())] ^= std::uint8_t(1u << rng.below(8));
    CHECK(crc32c(data) != whole);
  }
}
