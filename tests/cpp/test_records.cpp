// Records: what is sealed comes out, at any size and place, and nothing else does.
#include <algorithm>

#include "base/rng.hpp"
#include "check.hpp"
#include "net/records.hpp"

namespace pccl::net {
namespace {

struct Pair {
  std::unique_ptr<Records> seals, opens;
  explicit Pair(std::uint8_t mine = 1, std::uint8_t theirs = 1) {
    auto library = tls_library();
    REQUIRE(library);
    Records::Secret a, b;
    a.fill(mine), b.fill(theirs);
    seals = Records::create(**library, a, Records::Way::seal);
    opens = Records::create(**library, b, Records::Way::open);
    REQUIRE(seals && opens);
  }
  Bytes seal(ByteView plain) {
    Bytes record(plain.size() + Records::overhead);
    CHECK(seals->seal(plain, record.data()));
    return record;
  }
};

Bytes some_bytes(std::size_t size, std::uint64_t seed = 1) {
  Rng rng(seed);
  Bytes data(size);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(rng.next());
  return data;
}

TEST(records_of_every_size_in_their_place_and_elsewhere) {
  Pair pair;
  for (const std::size_t size : {1, 15, 16, 17, 255, 256, 257, 16384, 65535, 65536}) {
    const auto plain = some_bytes(size, size);
    auto record = pair.seal(plain);
    CHECK_EQ(Records::plain_bytes(record.data()), size);
    CHECK(size < 16 || std::ranges::search(record, plain).empty());
    Bytes opened(size);
    CHECK(pair.opens->open(record.data(), opened.data()));
    CHECK(opened == plain);

    Bytes whole(size + Records::overhead);  // sealed where it lies, and opened where it lies
    std::ranges::copy(plain, whole.begin() + Records::header_bytes);
    CHECK(pair.seals->seal({whole.data() + Records::header_bytes, size}, whole.data()));
    CHECK(pair.opens->open(whole.data(), whole.data() + Records::header_bytes));
    CHECK(std::equal(plain.begin(), plain.end(), whole.begin() + Records::header_bytes));
  }
}

TEST(every_changed_bit_of_a_record_is_noticed) {
  for (std::size_t bit = 0; bit < (33 + Records::overhead) * 8; ++bit) {
    Pair pair;
    auto record = pair.seal(some_bytes(33));
    record[bit / 8] = static_cast<std::uint8_t>(record[bit / 8] ^ (1u << (bit % 8)));
    const auto plain = Records::plain_bytes(record.data());
    record.resize(std::max<std::size_t>(record.size(), plain + Records::overhead));
    Bytes opened(plain + 1);
    CHECK(plain == 0 || !pair.opens->open(record.data(), opened.data()));
  }
}

TEST(no_record_is_left_out_repeated_or_moved) {
  Pair pair, other;
  Bytes opened(100);
  const auto first = pair.seal(some_bytes(100)), second = pair.seal(some_bytes(100));
  CHECK(!other.opens->open(second.data(), opened.data()));  // the first one never came
  CHECK(pair.opens->open(first.data(), opened.data()));
  CHECK(!pair.opens->open(first.data(), opened.data()));
  CHECK(first != second);
}

TEST(another_secret_opens_nothing) {
  Pair pair(1, 2);
  Bytes opened(100);
  CHECK(!pair.opens->open(pair.seal(some_bytes(100)).data(), opened.data()));
}

TEST(keys_change_where_the_sender_says_so) {
  Pair pair;
  pair.seals->renew_key_after(250);
  int renewed = 0;
  for (std::uint64_t i = 0; i < 50; ++i) {
    const auto plain = some_bytes(100, i);
    const auto record = pair.seal(plain);
    renewed += (record[3] & 0x80) != 0;
    Bytes opened(100);
    CHECK(pair.opens->open(record.data(), opened.data()));
    CHECK(opened == plain);
  }
  CHECK_EQ(renewed, 16);
}

TEST(lengths_that_no_record_has) {
  for (const std::uint32_t bytes : {0u, 65537u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    std::array<std::uint8_t, 4> header;
    store_little(header.data(), bytes);
    CHECK_EQ(Records::plain_bytes(header.data()), 0u);
  }
}

}  // namespace
}  // namespace pccl::net
